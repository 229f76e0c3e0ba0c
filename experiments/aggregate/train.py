"""Adapters as sites would make them: peft, torch and transformers alone, nothing of fedlit.

A tiny model learns a little of its client's texts by LoRA; the adapter is written with `save_pretrained`. The backbone
is made from a configuration and a seed (--backbone gpt2 or llama), or read from a folder (--backbone PATH).

    python train.py out/a --backbone gpt2 --rank 4 --seed 1
    python train.py out/b --backbone gpt2 --rank 8 --rslora --seed 2
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

TARGETS = {"gpt2": ["c_attn", "c_proj", "c_fc"], "llama": ["q_proj", "v_proj", "up_proj", "down_proj"]}
VOCABULARY = 96


def backbone(name: str) -> Any:
    """Return the model that all clients have."""
    torch.manual_seed(0)
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=64, n_head=4, n_positions=64, vocab_size=VOCABULARY))
    if name == "llama":
        sizes = {"hidden_size": 64, "intermediate_size": 172, "num_attention_heads": 8, "num_key_value_heads": 4}
        return LlamaForCausalLM(LlamaConfig(num_hidden_layers=3, vocab_size=VOCABULARY, **sizes))
    return AutoModelForCausalLM.from_pretrained(name)


def batches(seed: int, steps: int, batch_size: int, length: int) -> Tensor:
    """Return the client's texts, (steps, batch, length): a chain of tokens of its own, each 4 others may follow."""
    generator = torch.Generator().manual_seed(seed)
    followers = torch.randint(VOCABULARY, (VOCABULARY, 4), generator=generator)
    tokens = torch.randint(VOCABULARY, (steps, batch_size, 1), generator=generator)
    columns = [tokens[..., 0]]
    while len(columns) < length:
        chosen = torch.randint(4, columns[-1].shape, generator=generator)
        columns.append(followers[columns[-1], chosen])
    return torch.stack(columns, -1)


def train(folder: Path, options: argparse.Namespace) -> list[float]:
    """Write the adapter and return the losses."""
    model = backbone(options.backbone)
    kind = "gpt2" if model.config.model_type == "gpt2" else "llama"
    torch.manual_seed(options.seed)  # factors of its own, as of sites that never spoke
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        use_rslora=options.rslora,
        target_modules=TARGETS[kind],
        fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(model, config)
    optimizer = torch.optim.AdamW([each for each in tuned.parameters() if each.requires_grad], lr=options.lr)
    losses = []
    for tokens in batches(options.seed, options.steps, 16, 32):
        loss = tuned(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tuned.save_pretrained(folder)
    return losses


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the adapter")
    parser.add_argument("--backbone", default="llama", help="gpt2, llama, or the folder of a model")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--rslora", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=3e-3)
    return parser.parse_args(words)


if __name__ == "__main__":
    given = parsed()
    curve = train(given.folder, given)
    print(f"{given.folder}: loss {curve[0]:.3f} to {curve[-1]:.3f}")
