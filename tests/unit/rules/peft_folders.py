"""Adapters as a site would train and save them: peft alone, on small random models."""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

LLAMA, GPT2 = ["q_proj", "v_proj", "down_proj"], ["c_attn", "c_proj"]


def llama() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=2, head_dim=8, **sizes)).double()


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=24, n_head=4, vocab_size=64)).double()


def save(
    folder: Path, model: Any, targets: Any, *, seed: int, dtype: torch.dtype = torch.float32, **options: Any
) -> Path:
    """Write an adapter with random factors, as if it had been trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=targets, **options))
        torch.manual_seed(seed)
        for name, parameter in wrapped.named_parameters():
            biased = options.get("bias", "none") != "none" and name.endswith(".bias") and parameter.requires_grad
            if ".lora_" in name or ".modules_to_save." in name or biased:
                parameter.data = (0.3 * torch.randn(parameter.shape)).to(dtype)
        wrapped.save_pretrained(folder)
    return folder


def changes(folder: Path, model: Any) -> dict[str, Tensor]:
    """Return what peft adds to every weight when it merges an adapter, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        # peft keeps factors of low precision in float32, and a model's own type would be taken for them otherwise.
        loaded = PeftModel.from_pretrained(copy.deepcopy(model), folder, autocast_adapter_dtype=False)
    merged = dict(loaded.double().merge_and_unload().named_parameters())
    return {
        name: merged[name].data - weight.data
        for name, weight in model.named_parameters()
        if not torch.equal(merged[name], weight)
    }


def mean(folders: list[Path], weights: list[float], model: Any) -> dict[str, Tensor]:
    """Return the weighted mean of the effective changes, dense, in float64."""
    all_changes = [changes(folder, model) for folder in folders]
    return {
        name: sum(weight * each[name] for weight, each in zip(weights, all_changes, strict=True)) / sum(weights)
        for name in all_changes[0]
    }


def norm(matrices: dict[str, Tensor]) -> float:
    """Return the Frobenius norm over all."""
    return sum(float(matrix.square().sum()) for matrix in matrices.values()) ** 0.5


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return one - other."""
    assert one.keys() == other.keys()
    return {name: one[name] - other[name] for name in one}


def truncated(matrix: Tensor, rank: int) -> Tensor:
    """Return the best approximation of a dense matrix at a rank."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vh[:rank]
