"""Load a pretrained backbone and its tokenizer, and name its attention and MLP projections."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from fedlit.config import ModelConfig
from fedlit.errors import UserError

PACKAGED = {"tiny": Path(__file__).parent / "tiny"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Projections:
    """Module names of the linear layers inside a transformer block.

    attention: query, key, value and output projection in this order (fewer where an architecture fuses them).
    mlp: the MLP's projections, the down projection last.
    """

    attention: tuple[str, ...]
    mlp: tuple[str, ...]

    def select(self, target: str | Sequence[str]) -> tuple[str, ...]:
        """Return the module names that `target` stands for: `qkv`, `attention`, `mlp`, `all`, or names as they are."""
        if not isinstance(target, str):
            return tuple(target)
        groups = {
            "qkv": self.attention[:-1],
            "attention": self.attention,
            "mlp": self.mlp,
            "all": (*self.attention, *self.mlp),
        }
        if target not in groups:
            raise UserError(
                f"method.target_modules={target} is not known; valid are {', '.join(groups)} or a list of names"
            )
        return groups[target]


_LLAMA = Projections(attention=("q_proj", "k_proj", "v_proj", "o_proj"), mlp=("gate_proj", "up_proj", "down_proj"))
PROJECTIONS = {
    **dict.fromkeys(
        ("llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "olmo2", "smollm3"), _LLAMA
    ),
    "gpt2": Projections(attention=("attn.c_attn", "attn.c_proj"), mlp=("mlp.c_fc", "mlp.c_proj")),
    "gpt_neox": Projections(attention=("query_key_value", "dense"), mlp=("dense_h_to_4h", "dense_4h_to_h")),
    "opt": Projections(attention=("q_proj", "k_proj", "v_proj", "out_proj"), mlp=("fc1", "fc2")),
    "phi3": Projections(attention=("qkv_proj", "o_proj"), mlp=("gate_up_proj", "down_proj")),
}


HEADS = ("classifier", "score")
"""Attributes under which transformers keeps the head of a classification model."""


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model's classification head by name; none of a language model."""
    return {name: parameter for name, parameter in model.named_parameters() if name.split(".", maxsplit=1)[0] in HEADS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """A causal language model, all of it frozen, with its tokenizer."""

    model: nn.Module
    tokenizer: Any
    projections: Projections


def load_tokenizer(config: ModelConfig) -> Any:
    """Return the tokenizer of a backbone."""
    path = _location(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise _not_loadable(config, "tokenizer", error) from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {config.path} has no end-of-text token; choose a model whose tokenizer has one"
        )
    return tokenizer


def load_backbone(config: ModelConfig, *, weights: bool = True) -> Backbone:
    """Return a backbone with every parameter frozen; with weights=False it is built on the meta device, without memory.

    Raises:
        UserError: the model or its tokenizer cannot be loaded, or its projections are not known.
    """
    path = _location(config)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
    options = {"dtype": dtype, "attn_implementation": config.attention_implementation}
    tokenizer = load_tokenizer(config)
    try:
        if weights:
            model = AutoModelForCausalLM.from_pretrained(path, **options)
        else:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), **options)
    except Exception as error:
        raise _not_loadable(config, "model", error) from error
    model.requires_grad_(False)
    # A checkpoint may come with generation settings, a repetition penalty say, under which decoding is not greedy.
    model.generation_config = GenerationConfig()
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and config.max_length_tokens > longest:
        raise UserError(
            f"model.max_length_tokens={config.max_length_tokens} but {config.path} reads {longest} tokens; lower it"
        )
    return Backbone(model=model, tokenizer=tokenizer, projections=_projections(config, model))


def _location(config: ModelConfig) -> str:
    if config.path in PACKAGED:
        return str(PACKAGED[config.path])
    looks_local = config.path.startswith((".", "/", "~"))
    if looks_local and not Path(config.path).expanduser().is_dir():
        raise UserError(f"model.path={config.path} is not a folder; give a local folder or a Hugging Face model id")
    return str(Path(config.path).expanduser()) if looks_local else config.path


def _projections(config: ModelConfig, model: nn.Module) -> Projections:
    kind: str = model.config.model_type  # type: ignore[union-attr, assignment]
    known = PROJECTIONS.get(kind)
    if known is None and (config.attention is None or config.mlp is None):
        raise UserError(
            f"the projections of architecture {kind} are not known; name them with model.attention=[q,k,v,out] "
            f"and model.mlp=[up,down] (known: {', '.join(sorted(PROJECTIONS))})"
        )
    return Projections(
        attention=tuple(config.attention) if config.attention else known.attention,  # type: ignore[union-attr]
        mlp=tuple(config.mlp) if config.mlp else known.mlp,  # type: ignore[union-attr]
    )


def _not_loadable(config: ModelConfig, what: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    remedy = "check the name, or download it first and give its folder"
    if "attention implementation" in reason:  # an architecture without torch's fused kernel
        remedy = "give model.attention_implementation=eager"
    return UserError(
        f"the {what} of model.path={config.path} cannot be loaded ({type(error).__name__}: {reason}); {remedy}"
    )
