"""LoRA adapters as peft stores them: adapter_config.json and adapter_model.safetensors, read one layer at a time.

What the tensors are and what the configuration says of them is taken as `PeftModel.from_pretrained` takes it: the rank
of a layer is that of its tensors, which a pattern must agree with; patterns are regular expressions at the end of a
layer's name, the first that fits in the order of the file. A is (r, in) and B (out, r) whatever layout the weight has,
so that Linear and GPT-2's Conv1D are the same here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedlit.data.json_files import read_json_file, require_no_pointer
from fedlit.errors import UserError
from fedlit.rules.factors import Factors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""peft's own shell in front of a layer's name."""

_KEY = re.compile(r"(?P<name>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(?P<weight>\.weight)?", re.DOTALL)
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_OTHER_KINDS: Mapping[str, str] = {
    "use_dora": "DoRA, whose magnitudes are no part of a product",
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


@dataclass(frozen=True, eq=False)
class AdapterFolder(Mapping[str, Factors]):
    """An adapter by the names of its layers, whose tensors are read when they are asked for.

    path: the folder. config: adapter_config.json. factors: keys of A and B and the scaling, by layer name.
    others: keys of what was trained whole beside it, modules_to_save and biases. notices: lines that a person should
    read about it.
    """

    path: Path
    config: Mapping[str, Any]
    factors: Mapping[str, tuple[str, str, float]]
    others: tuple[str, ...]
    notices: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Factors:
        """Return a layer's factors.

        Raises:
            UserError: an entry is not finite.
        """
        a, b, scaling = self.factors[name]
        return Factors(self.tensor(a), self.tensor(b), scaling)

    def __contains__(self, name: object) -> bool:
        return name in self.factors  # the mixin would read the layer

    def __iter__(self) -> Iterator[str]:
        return iter(self.factors)

    def __len__(self) -> int:
        return len(self.factors)

    def tensor(self, key: str) -> Tensor:
        """Return one tensor by its key in the file.

        Raises:
            UserError: an entry is not finite.
        """
        tensor: Tensor = self._file.get_tensor(key)
        if not tensor.isfinite().all():
            raise UserError(f"{self.path}: {key} holds a NaN or an infinity; take that adapter out, or train it again")
        return tensor

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape, from the header."""
        return tuple(self._file.get_slice(key).get_shape())

    @cached_property
    def dtype(self) -> torch.dtype:
        """The finest type among the factors."""
        keys = [key for a, b, _ in self.factors.values() for key in (a, b)]
        return reduce(torch.promote_types, {_FLOATS[self._file.get_slice(key).get_dtype()] for key in keys})

    @cached_property
    def _file(self) -> Any:
        return safe_open(self.path / WEIGHTS, framework="pt")

    @property
    def backbone(self) -> str | None:
        """The model that it was trained on, as peft notes it."""
        return self.config.get("base_model_name_or_path") or None


def read_adapter_folder(path: Path) -> AdapterFolder:
    """Return the LoRA adapter in a folder that peft wrote.

    Raises:
        UserError: names the folder and what is wrong: no adapter, another kind than LoRA, tensors that do not fit its
            configuration.
    """
    config = _read_config(path)
    _require_lora(path, config)
    keys = _read_keys(path)
    found: dict[str, dict[str, str]] = {}
    others = []
    for key in keys:
        match = _KEY.fullmatch(key)
        if match is None or bool(match["embedding"]) == bool(match["weight"]):
            others.append(key)
        else:
            found.setdefault(match["name"].removeprefix(PREFIX), {})[match["factor"]] = key
    _require_known(path, others, config)
    if not found:
        raise UserError(f"{path}: no LoRA factors in {WEIGHTS} ({len(keys)} tensors); give an adapter of peft")
    folder = AdapterFolder(path, config, {}, tuple(others))
    factors = {}
    for name, pair in found.items():
        if len(pair) < 2:
            raise UserError(f"{path}: layer {name} has {next(iter(pair))} alone in {WEIGHTS}; save the adapter again")
        rank = _rank(folder, name, pair)
        factors[name] = (pair["A"], pair["B"], _scaling(path, config, name, rank))
    return AdapterFolder(path, config, factors, tuple(others), tuple(_notices(path, config, factors)))


def _notices(path: Path, config: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """Yield a line where it cannot be known with which alpha a layer was trained."""
    patterns = config.get("alpha_pattern") or {}
    for name in names:
        fitting = {value: end for end, value in patterns.items() if _fits(end, name)}
        if len(fitting) > 1:
            both = " and ".join(map(repr, fitting.values()))
            yield (
                f"{path}: {both} of alpha_pattern fit layer {name}; the first in the file counts, as peft loads it, "
                "and peft may have trained it by the other: it sorts them when it saves"
            )
            return


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise UserError(f"{path} is no folder; give the folder of an adapter, with {CONFIG} in it")
    if not (path / CONFIG).is_file():
        inside = sorted(entry.parent.name for entry in path.glob(f"*/{CONFIG}"))
        hint = f"give one of the folders in it, such as {inside[0]}" if inside else "give the folder of an adapter"
        what = "a whole model" if (path / "config.json").is_file() else f"no {CONFIG}"
        raise UserError(f"{path} holds {what}, no adapter of peft; {hint}")
    config = read_json_file(path / CONFIG, "adapter", "peft's configuration of an adapter is expected")
    if not isinstance(config, dict):
        raise UserError(f"{path / CONFIG} is no object; save the adapter again")
    return config


def _require_lora(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UserError(f"{path} is an adapter of kind {kind}; products of LoRA factors alone have a mean here")
    for key, what in _OTHER_KINDS.items():
        if config.get(key):
            raise UserError(f"{path} has {key}: {what}; give plain LoRA adapters")
    start = config.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise UserError(
            f"{path} has init_lora_weights={start}, which changes the backbone or the layer too; save it with peft's "
            "path_initial_model_for_weight_conversion, or give plain LoRA adapters"
        )


def _read_keys(path: Path) -> list[str]:
    file = path / WEIGHTS
    if not file.is_file():
        pickled = next(iter(sorted(path.glob("*.bin"))), None)
        what = f"{pickled.name}, a pickle, which may run code when it is read" if pickled else f"no {WEIGHTS}"
        raise UserError(f"{path} holds {what}; save the adapter with safe_serialization=True")
    require_no_pointer(file, str(file))
    try:
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
            for key in keys:
                kind = opened.get_slice(key).get_dtype()
                if kind not in _FLOATS:
                    raise UserError(f"{path}: {key} holds {kind}, no floating-point numbers; give an adapter of floats")
    except SafetensorError as error:
        raise UserError(f"{file} cannot be read ({error}); copy it again") from None
    return keys


def _require_known(path: Path, others: list[str], config: Mapping[str, Any]) -> None:
    """Refuse tensors of which nobody knows here what their mean would be."""
    saved = config.get("modules_to_save") or ()
    biases = config.get("bias", "none") != "none"
    for key in others:
        place = f".{key.removeprefix(PREFIX)}."
        whole = (biases and place.endswith(".bias.")) or any(f".{name}." in place for name in saved)
        if whole and ".lora_" not in place:
            continue
        what = "DoRA's magnitude" if "lora_magnitude_vector" in key else "neither a LoRA factor nor in modules_to_save"
        raise UserError(f"{path}: {key} is {what}; give plain LoRA adapters")


def _rank(folder: AdapterFolder, name: str, pair: Mapping[str, str]) -> int:
    """Return the rank of a layer, that of its tensors."""
    a, b = folder.shape(pair["A"]), folder.shape(pair["B"])
    if len(a) != 2 or len(b) != 2:
        raise UserError(
            f"{folder.path}: layer {name} has factors {a} and {b}, not matrices; linear layers alone will do"
        )
    if a[0] != b[1] or not a[0]:
        raise UserError(f"{folder.path}: layer {name} has A {a} and B {b}, of no common rank; save the adapter again")
    told = _by_pattern(folder.path, folder.config, "rank_pattern", name, folder.config.get("r"))
    if told != a[0]:
        raise UserError(
            f"{folder.path}: layer {name} has rank {a[0]} and {CONFIG} says {told}, so that peft cannot load it "
            "either; mend r or rank_pattern, whose first pattern that fits counts, in the order of the file"
        )
    return a[0]


def _scaling(path: Path, config: Mapping[str, Any], name: str, rank: int) -> float:
    alpha = _by_pattern(path, config, "alpha_pattern", name, config.get("lora_alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
        raise UserError(f"{path}: layer {name} has lora_alpha={alpha} in {CONFIG}; a number above 0 is needed")
    return float(alpha / (rank**0.5 if config.get("use_rslora") else rank))


def _by_pattern(path: Path, config: Mapping[str, Any], key: str, name: str, default: Any) -> Any:
    """Return what a pattern says of a layer: the first that fits, as in peft."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{path}: {key} in {CONFIG} is no object; save the adapter again")
    try:
        return next((value for end, value in patterns.items() if _fits(end, name)), default)
    except re.error as error:
        raise UserError(f"{path}: {key} in {CONFIG} has no regular expression ({error}); mend it") from None


def _fits(pattern: str, name: str) -> bool:
    """Tell whether a pattern is for a layer, as peft does."""
    return re.match(rf"(.*\.)?({pattern})$", name) is not None
