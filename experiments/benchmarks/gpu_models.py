"""Language models by their published shapes, with random weights, and what their training costs in operations.

Shapes are what speed and memory depend on. Sources: config.json of TinyLlama/TinyLlama_v1.1 (arXiv 2401.02385), table 1
of the Gemma report (arXiv 2403.08295), and section 3.2 of the report on Llama 3 (arXiv 2407.21783).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig

from fedlit.config import ModelConfig
from fedlit.models import Backbone, Purpose, load_tokenizer
from fedlit.models.loading import as_backbone
from fedlit.seeding import torch_stream

MODELS: Mapping[str, Any] = {
    "tinyllama": LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
    ),
    "gemma-2b": GemmaConfig(
        vocab_size=256000,
        hidden_size=2048,
        intermediate_size=16384,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=8192,
    ),
    "llama-3.1-8b": LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
    ),
}

TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 2048,
}
"""What --tiny puts in place of a model's own sizes: shows that the script runs."""

PEAK_TFLOPS = {
    "GH200": 989,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "B200": 2250,
    "A100": 312,
    "A6000": 155,
    "L40S": 362,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "A10": 125,
    "L4": 121,
}
"""Dense bfloat16 products with sums in float32, 1e12 operations a second, from the cards' data sheets. The first name
that is a part of torch's name for the card counts.
"""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations of one trained token of a model, from its matrices.

    num_block: parameters of the blocks' matrices. attention: operations of one token's attention in one forward pass,
    half of the square, since the mask is causal. num_head: parameters of the output projection. num_trained,
    num_trained_head: those of the blocks, factors of LoRA and weights alike, and of the projection that get a gradient.
    """

    num_block: int
    attention: float
    num_head: int
    num_trained: int
    num_trained_head: int = 0

    def flops(self, num_tokens: int, num_labels: int) -> float:
        """Return the operations of training on so many tokens: forward, gradients of activations, those of weights.
        Of a product of attention both sides are activations.

        The output projection counts where a token has a label, as it is computed there alone. What is computed a second
        time, to save memory, does not count.
        """
        of_token = 4 * self.num_block + 3 * self.attention + 2 * self.num_trained
        of_label = 4 * self.num_head + 2 * self.num_trained_head
        return float(num_tokens * of_token + num_labels * of_label)


def work_of(model: nn.Module, num_tokens: int) -> Work:
    """Return the work of a model as it stands, adapter included, on texts of `num_tokens` tokens."""
    shape: Any = model.config
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight  # type: ignore[operator]
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    trained = [one for one in model.parameters() if one.requires_grad and one is not head and one is not embedding]
    return Work(
        num_block=sum(weight.numel() for weight in linear if weight is not head),
        attention=2 * num_tokens * shape.num_attention_heads * size * shape.num_hidden_layers,
        num_head=head.numel(),
        num_trained=sum(one.numel() for one in trained),
        num_trained_head=head.numel() if head.requires_grad else 0,
    )


def peak_flops(card: str, given_tflops: float | None) -> float | None:
    """Return the operations a second that a card can do at best; None for one that is not known."""
    if given_tflops is not None:
        return given_tflops * 1e12
    return next((tflops * 1e12 for name, tflops in PEAK_TFLOPS.items() if name in card), None)


def architecture(name: str, *, tiny: bool) -> Any:
    """Return the configuration of a model, with sizes that any machine trains if `tiny`."""
    known = MODELS[name]
    return type(known)(**{**known.to_diff_dict(), **(TINY if tiny else {})})


@dataclass(frozen=True, kw_only=True)
class RandomBackbone:
    """Loads a model with random weights, drawn on the device that trains it: no file, and no copy in host memory."""

    architecture: Any
    device: torch.device

    def load(self, config: ModelConfig, purpose: Purpose, *, weights: bool = True) -> Backbone:
        """Return what `load_backbone` returns for a model that lies in files."""
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
        with torch_stream(purpose.seed, "backbone"), self.device if weights else torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                self.architecture, dtype=dtype, attn_implementation=config.attention_implementation
            )
        return as_backbone(config, purpose, model, load_tokenizer(config))
