"""What peft's configuration says of an adapter's tensors: layers, ranks, scalings, and what has no mean of products.

It is taken as `PeftModel.from_pretrained` takes it: the rank of a layer is that of its tensors, which a pattern must
agree with; patterns are regular expressions at the end of a layer's name, the first that fits in their order. A is
(r, in) and B (out, r) whatever layout the weight has, so that Linear and GPT-2's Conv1D are the same here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedlit.errors import UserError

CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
"""peft's own shell in front of a layer's name."""

Shapes = Mapping[str, tuple[int, ...]]

_KEY = re.compile(r"(?P<name>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(?P<weight>\.weight)?", re.DOTALL)
_TO_LORA = "peft's save_as_lora makes a LoRA adapter of it"
_OTHER_TYPES: Mapping[str, str] = {
    "VERA": f"vectors between projections that adapters need not share; {_TO_LORA}",
    "OFT": "rotations, and a mean of rotations is none; merge each and average the models",
    "BOFT": "rotations, and a mean of rotations is none; merge each and average the models",
    "ADALORA": "singular values between the factors; merge each and average the models",
    "IA3": "factors of activations, no change of a weight; average them by their keys",
    "LOHA": f"products of four factors; {_TO_LORA}",
    "LOKR": f"Kronecker products; {_TO_LORA}",
}
"""Kinds that people have, with what they hold."""
_OTHER_KINDS: Mapping[str, str] = {
    "use_dora": "DoRA, whose magnitudes are no part of a product, and peft's save_as_lora drops them",
    "use_qalora": "QALoRA, whose A reads pooled inputs",
    "use_bdlora": "BD-LoRA, whose factors are block-diagonal",
    "lora_bias": "biases of B",
    "alora_invocation_tokens": "an activated LoRA, which does not act on all tokens",
    "trainable_token_indices": "trained tokens beside LoRA",
    "layer_replication": "replicated layers",
    "target_parameters": "parameters as targets, not layers",
    "arrow_config": "Arrow's routing between adapters",
    "kasa_config": "KaSA's singular values",
    "monteclora_config": "MonteCLoRA's sampled factors",
}
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to initialise that leave the backbone as it is; PiSSA, OLoRA and others subtract from it."""


@dataclass(frozen=True)
class Layout:
    """Which tensors are an adapter's factors.

    factors: keys of A and B and the scaling, by layer name. others: keys of what was trained whole beside them.
    notices: lines that a person should read.
    """

    factors: Mapping[str, tuple[str, str, float]]
    others: tuple[str, ...]
    notices: tuple[str, ...]


def read_layout(shapes: Shapes, config: Mapping[str, Any], place: str) -> Layout:
    """Return which tensors are factors of which layer, and each layer's scaling.

    Args:
        shapes: of all tensors, by the keys of `get_peft_model_state_dict`.
        config: peft's configuration, as adapter_config.json or `to_dict()` has it.
        place: what errors call the adapter, such as its folder.

    Raises:
        UserError: another kind than plain LoRA, tensors that do not fit the configuration.
    """
    _require_lora(place, config)
    found: dict[str, dict[str, str]] = {}
    others, embeddings = [], []
    for key in shapes:
        match = _KEY.fullmatch(key)
        if match is None or bool(match["embedding"]) == bool(match["weight"]):
            others.append(key)
            continue
        name = match["name"].removeprefix(PREFIX)
        found.setdefault(name, {})[match["factor"]] = key
        embeddings += [name] if match["embedding"] and match["factor"] == "A" else []
    _require_known(place, others, config)
    if not found:
        raise UserError(f"{place}: no LoRA factors ({len(shapes)} tensors); give an adapter of peft")
    factors = {}
    for name, pair in found.items():
        if len(pair) < 2:
            raise UserError(f"{place}: layer {name} has {next(iter(pair))} alone; save the adapter again")
        rank = _rank(place, config, name, shapes[pair["A"]], shapes[pair["B"]])
        factors[name] = (pair["A"], pair["B"], _scaling(place, config, name, rank))
    notices = [*_overlaps(place, config, factors), *_tied(place, embeddings)]
    return Layout(factors, tuple(others), tuple(notices))


def _overlaps(place: str, config: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """Yield a line where it cannot be known with which alpha a layer was trained."""
    patterns = config.get("alpha_pattern") or {}
    for name in names:
        fitting = {value: end for end, value in patterns.items() if _fits(end, name)}
        if len(fitting) > 1:
            both = " and ".join(map(repr, fitting.values()))
            yield (
                f"{place}: {both} of alpha_pattern fit layer {name}; the first in the file counts, as peft loads it, "
                "and peft may have trained it by the other: it sorts them when it saves"
            )
            return


def _tied(place: str, embeddings: list[str]) -> Iterator[str]:
    """Yield a line where merging may change more than the adapter does."""
    if embeddings:
        yield (
            f"{place}: layer {embeddings[0]} is an embedding; where it is tied to the output head, merging the result "
            "changes the head too, which the adapter does not"
        )


def _require_lora(place: str, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        kind = str(getattr(kind, "value", kind))
        told = _OTHER_TYPES.get(kind, "products of LoRA factors alone have a mean here; give LoRA adapters")
        raise UserError(f"{place} is an adapter of kind {kind}: {told}")
    for key, what in _OTHER_KINDS.items():
        if config.get(key):
            raise UserError(f"{place} has {key}: {what}; give plain LoRA adapters")
    start = config.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise UserError(
            f"{place} has init_lora_weights={start}, which changes the backbone or the layer too; save it with peft's "
            "path_initial_model_for_weight_conversion, or give plain LoRA adapters"
        )


def _require_known(place: str, others: list[str], config: Mapping[str, Any]) -> None:
    """Refuse tensors of which nobody knows here what their mean would be."""
    saved = config.get("modules_to_save") or ()
    biases = config.get("bias", "none") != "none"
    for key in others:
        within = f".{key.removeprefix(PREFIX)}."
        whole = (biases and within.endswith(".bias.")) or any(f".{name}." in within for name in saved)
        if whole and ".lora_" not in within:
            continue
        if ".base_layer." in within:
            raise UserError(f"{place}: {key} is the backbone's own; save with peft's save_embedding_layers=False")
        what = "DoRA's magnitude" if "lora_magnitude_vector" in key else "neither a LoRA factor nor in modules_to_save"
        raise UserError(f"{place}: {key} is {what}; give plain LoRA adapters")


def _rank(place: str, config: Mapping[str, Any], name: str, a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Return the rank of a layer, that of its tensors."""
    if len(a) != 2 or len(b) != 2:
        raise UserError(f"{place}: layer {name} has factors {a} and {b}, not matrices; linear layers alone will do")
    if a[0] != b[1] or not a[0]:
        raise UserError(f"{place}: layer {name} has A {a} and B {b}, of no common rank; save the adapter again")
    told = _by_pattern(place, config, "rank_pattern", name, config.get("r"))
    if told != a[0]:
        raise UserError(
            f"{place}: layer {name} has rank {a[0]} and {CONFIG} says {told}, so that peft cannot load it "
            "either; mend r or rank_pattern, whose first pattern that fits counts, in the order of the file"
        )
    return a[0]


def _scaling(place: str, config: Mapping[str, Any], name: str, rank: int) -> float:
    alpha = _by_pattern(place, config, "alpha_pattern", name, config.get("lora_alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise UserError(f"{place}: layer {name} has lora_alpha={alpha} in {CONFIG}; a number above 0 is needed")
    return float(alpha / (rank**0.5 if config.get("use_rslora") else rank))


def _by_pattern(place: str, config: Mapping[str, Any], key: str, name: str, default: Any) -> Any:
    """Return what a pattern says of a layer: the first that fits, as in peft."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, Mapping):
        raise UserError(f"{place}: {key} in {CONFIG} is no object; save the adapter again")
    try:
        return next((value for end, value in patterns.items() if _fits(end, name)), default)
    except re.error as error:
        raise UserError(f"{place}: {key} in {CONFIG} has no regular expression ({error}); mend it") from None


def _fits(pattern: str, name: str) -> bool:
    """Tell whether a pattern is for a layer, as peft does."""
    return re.match(rf"(.*\.)?({pattern})$", name) is not None
