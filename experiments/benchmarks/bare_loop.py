"""Two processes that train LoRA as one would by hand: `python bare_loop.py MODEL ROWS ROUNDS STEPS BATCH TOKENS`.

torch, transformers and peft; each process trains its half of the clients' steps on batches tokenised beforehand, and
the trained parameters are averaged with one flat all-reduce a round. It starts its own second process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def train(rank: int, store: str, model_folder: str, rows: str, sizes: list[int]) -> None:
    """Train one process's share; sizes: rounds, steps of a round, rows of a batch, tokens of a row."""
    num_rounds, num_steps, batch_size, num_tokens = sizes
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    texts = [json.loads(line)["text"] for line in Path(rows).read_text().splitlines()]
    rows_ids = tokenizer(texts, truncation=True, max_length=num_tokens)["input_ids"]
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=8, target_modules=PROJECTIONS, task_type="CAUSAL_LM"))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    place = rank * batch_size
    for _ in range(num_rounds):
        optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
        for _ in range(num_steps):
            ids = torch.tensor([rows_ids[(place + i) % len(rows_ids)] for i in range(batch_size)])
            place += 2 * batch_size
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        flat = torch.cat([parameter.detach().flatten() for parameter in trained])
        dist.all_reduce(flat)
        flat /= 2
        with torch.no_grad():
            for parameter, value in zip(trained, torch.split(flat, [p.numel() for p in trained]), strict=True):
                parameter.copy_(value.view_as(parameter))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Start the second process unless this is it, and train."""
    model, rows, *sizes = sys.argv[1:7]
    rank = int(os.environ.get("BARE_RANK", "0"))
    store = os.environ.get("BARE_STORE", str(Path.cwd() / "store"))
    environ = {**os.environ, "BARE_RANK": "1", "BARE_STORE": store}
    other = None if rank else subprocess.Popen([sys.executable, *sys.argv], env=environ)
    train(rank, store, model, rows, [int(size) for size in sizes])
    if other is not None and (code := other.wait()):
        sys.exit(code)


if __name__ == "__main__":
    main()
