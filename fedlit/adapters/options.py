"""The options of the adapters, apart from what needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedlit.options import option
from fedlit.ranges import COUNT, FRACTION, POSITIVE, POSITIVE_COUNT, SHARE

LINEAR_LAYERS = ("qkv", "attention", "mlp", "all")
"""Sets of projections with a name; see Projections.select."""

INITS_OF_CORES = ("update", "gradient", "weights", "random")
INITS_OF_HEADS = ("orthogonal", "normal")
INITS_OF_COMPRESSION = ("gaussian", "svd", "whitened")


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """LoRA."""

    lora_rank: int | Sequence[int] = option(
        8,
        "rank r of the factors A (r, in) and B (out, r); a list has one for each client, which flexlora, flora, "
        "florist and hetlora combine",
        range=POSITIVE_COUNT,
    )
    lora_alpha: float = option(16.0, "delta W = alpha / r * B @ A", range=POSITIVE)
    lora_dropout: float = option(0.0, "dropout in front of A in training", range=FRACTION)
    target_modules: str | Sequence[str] = option(
        "qkv", "projections that get factors: a set of that name, or a list of module names", values=LINEAR_LAYERS
    )
    use_rslora: bool = option(False, "scale by alpha / sqrt(r) instead of alpha / r")


@dataclass(frozen=True, kw_only=True)
class AlternatingOptions(LoraOptions):
    """LoRA whose factors take turns by local step."""

    low_pass: bool = option(
        True, "smooth the gradients of A along its inputs and of B along its outputs with [1, 4, 6, 4, 1] / 16"
    )


@dataclass(frozen=True, kw_only=True)
class LoraCoreOptions:
    """Fed-SB's adapter."""

    lora_rank: int = option(
        16, "rank r: B (out, r) and A (r, in) are frozen, C (r, r) is trained and sent", range=POSITIVE_COUNT
    )
    lora_alpha: float = option(16.0, "delta W = alpha / r * B @ C @ A; the paper has alpha = r", range=POSITIVE)
    target_modules: str | Sequence[str] = option(
        "qkv", "projections that get a core: a set of that name, or a list of module names", values=LINEAR_LAYERS
    )
    init: str = option(
        "update",
        "A, B and C from the SVD of the first step of full fine-tuning (update, the paper); A and B from gradient, "
        "weights or random, C zero",
        values=INITS_OF_CORES,
    )
    init_lr: float | None = option(None, "learning rate of that step; null for local.lr (the paper)", range=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class LoraHeadsOptions:
    """Ravan's adapter."""

    num_heads: int = option(4, "heads h of a layer", range=POSITIVE_COUNT)
    lora_rank: int = option(
        8,
        "rank r of one head: B_h (out, r) and A_h (r, in) are frozen, H_h (r, r) and its scale s_h are trained",
        range=POSITIVE_COUNT,
    )
    lora_alpha: float = option(
        8.0, "delta W = alpha / r * sum_h s_h B_h H_h A_h; the paper has alpha = r", range=POSITIVE
    )
    target_modules: str | Sequence[str] = option(
        "qkv", "projections that get heads: a set of that name, or a list of module names", values=LINEAR_LAYERS
    )
    init: str = option(
        "orthogonal",
        "A_h and B_h of all heads orthogonal to one another (orthogonal), or drawn from a normal distribution (normal)",
        values=INITS_OF_HEADS,
    )


@dataclass(frozen=True, kw_only=True)
class LoraPairOptions:
    """Two LoRAs side by side."""

    lora_rank: int = option(8, "rank r of A (r, in) and B (out, r) of both LoRAs", range=POSITIVE_COUNT)
    lora_alpha: float = option(16.0, "delta W = alpha / r * B @ A, of both", range=POSITIVE)
    lora_dropout: float = option(0.0, "dropout in front of A in training, one draw for both", range=FRACTION)
    target_modules: str | Sequence[str] = option(
        "qkv", "projections that get factors: a set of that name, or a list of module names", values=LINEAR_LAYERS
    )
    use_rslora: bool = option(False, "scale by alpha / sqrt(r) instead of alpha / r")


@dataclass(frozen=True, kw_only=True)
class LoraDualOptions(LoraPairOptions):
    """FedDPA's adapter."""

    local_weight: float = option(
        0.5, "weight of the local LoRA while it trains, that of the global one being 1 less it", range=SHARE
    )
    similarity_scale: float = option(
        0.5, "weight of the local LoRA for an input that is like all references; below that by the cosine", range=SHARE
    )
    num_references: int = option(
        5, "inputs of its last training whose representation a client stores", range=POSITIVE_COUNT
    )
    global_rounds: int | None = option(
        None,
        "FedDPA-F: rounds that train the global LoRA, before those that train the local one; null trains both in every "
        "round (FedDPA-T)",
        range=COUNT,
    )


@dataclass(frozen=True, kw_only=True)
class SclOptions:
    """SCL's adapter."""

    compression_dim: int = option(
        9,
        "d, outputs of the compression layer; 9 gives TinyLlama the parameters of LoRA r=8 on qkv",
        range=POSITIVE_COUNT,
    )
    init: str = option(
        "gaussian",
        "gaussian (the paper), svd (of W), or whitened (of W and its inputs on a few training batches)",
        values=INITS_OF_COMPRESSION,
    )


@dataclass(frozen=True, kw_only=True)
class DenseOptions:
    """Weights as they are."""

    target_modules: str | Sequence[str] = option(
        "up",
        "weights that are trained: up (the first projection of the MLP), qkv, attention, mlp, all (linear layers), "
        "model (every one), or a list of modules",
        values=("up", *LINEAR_LAYERS, "model"),
    )
