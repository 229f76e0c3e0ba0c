"""Backbones in 4 bits: NF4 with double quantisation (Dettmers et al., QLoRA, arXiv 2305.14314), by bitsandbytes.

Every linear layer but the output embedding is stored in 4 bits a weight, one 8-bit constant for 64 weights and one
32-bit constant for 256 of those, and computed in bfloat16. Such weights cannot be trained, replaced or added to: only
factors beside them can be, and what a rule folds, which stands beside them too.
"""

import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.tasks.registry import task_spec

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits of one weight, its share of the constants among them."""


def quantization_options() -> dict[str, Any]:
    """Return what `from_pretrained` needs to load a model in 4 bits.

    Raises:
        UserError: there is no CUDA device, or a library is missing.
    """
    if not torch.cuda.is_available():
        raise UserError("model.quantization=nf4 needs a CUDA device and there is none; leave it out")
    missing = [library for library in ("bitsandbytes", "accelerate") if find_spec(library) is None]
    if missing:
        raise UserError(f"model.quantization=nf4 needs {missing[0]}; install it with `pip install {missing[0]}`")
    # transformers imports it, and it complains of kernels for the CPU, on machines with a GPU too.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        "device_map": {"": torch.cuda.current_device()},
    }


def require_quantization_fits(run: RunConfig, *, keeps_weights: bool) -> None:
    """Refuse a quantised backbone in a run that would write to its weights.

    Args:
        run: the configuration.
        keeps_weights: whether the adapter only stands beside the pretrained weights, as LoRA does.

    Raises:
        UserError: says what cannot be done to weights in 4 bits.
    """
    if run.model.quantization is None:
        return
    obstacle = None
    if not keeps_weights:
        obstacle = f"the adapter of method={run.method.name} trains, reads or replaces them; choose one with LoRA"
    elif task_spec(run.data.task).has_head:
        obstacle = f"the result of data.task={run.data.task} is a whole model, which needs them; leave it out"
    elif run.run.export == "merged":
        obstacle = "run.export=merged adds to them; choose run.export=adapter"
    elif run.model.weights == "random":
        obstacle = "model.weights=random draws them; choose model.weights=pretrained"
    if obstacle is not None:
        raise UserError(f"model.quantization={run.model.quantization} keeps weights in 4 bits, but {obstacle}")


def quantizable_weights(model: nn.Module) -> list[Tensor]:
    """Return the weights that would be kept in 4 bits: of all linear layers but the output embedding's."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear) and module is not output]


def quantized_bytes(num_weights: int) -> int:
    """Return the bytes of this many weights in NF4."""
    return round(num_weights * NF4_BITS / 8)
