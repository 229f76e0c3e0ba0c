"""`fedlit aggregate`: folders of adapters in, one adapter out, and what every rule would have given.

The layers go by one after the other: of the inputs one layer is in memory, of the result all, in the type in which it
is written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank
from fedlit.errors import UserError
from fedlit.process.whole_folder import new_folder
from fedlit.rules import of_layers
from fedlit.rules.factors import Distance, Factors, mean_change, normalized
from fedlit.rules.folders import AdapterFolder, read_adapter_folder
from fedlit.rules.of_adapters import require_sizes
from fedlit.rules.writing import cast, write_adapter

LayerRule = Callable[[Sequence[Factors], Sequence[float]], Factors]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one rule gives.

    rule: its name. ranks: the smallest and the largest rank of a layer. num_numbers: of all factors. distance: relative
    Frobenius norm of the difference from the mean of the effective changes, as written. reason: why it gives nothing.
    """

    rule: str
    ranks: tuple[int, int] = (0, 0)
    num_numbers: int = 0
    distance: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule by its name: `fedit`, `hetlora`, `flexlora`, `fedex` or `flora`.

    rank, energy: of flexlora. residual_rank: of fedex. See `fedlit.rules.of_layers`.

    Raises:
        UserError: a size out of range.
    """

    name: str
    rank: int | None = None
    energy: float | None = None
    residual_rank: int | None = None

    def __post_init__(self) -> None:
        require_sizes(rank=self.rank, energy=self.energy, residual_rank=self.residual_rank)
        if self.name not in self.all():
            raise UserError(f"{self.name} is no rule; choose one of {', '.join(self.all())}")

    def all(self) -> Mapping[str, LayerRule]:
        """Return every rule by its name, the sizes given to those that take them."""
        return {
            "fedit": of_layers.fedit,
            "hetlora": of_layers.hetlora,
            "flexlora": partial(of_layers.flexlora, rank=self.rank, energy=self.energy),
            "fedex": partial(of_layers.fedex, residual_rank=self.residual_rank),
            "flora": of_layers.flora,
        }


def aggregate_folders(
    paths: Sequence[Path],
    weights: Sequence[float],
    out: Path,
    rule: Rule,
    *,
    dtype: torch.dtype | None = None,
    backbone: str | None = None,
    notice: Callable[[str], object] = str,
) -> list[Outcome]:
    """Write the aggregate of adapter folders into `out`, and return what the rule and every other one give.

    Args:
        paths: folders that peft wrote.
        weights: one for each, of any sum.
        out: the new folder.
        rule: how they are aggregated.
        dtype: of the result; None for the finest among the adapters'.
        backbone: the model of all of them, where their own notes of it differ.
        notice: is told lines that a person should read.

    Raises:
        UserError: names the folder and what does not fit; nothing is written then.
    """
    shares = normalized(weights, len(paths))
    folders = [read_adapter_folder(path) for path in paths]
    for folder in folders[1:]:
        _require_same(folders[0], folder, backbone)
    for line in (line for folder in folders for line in folder.notices):
        notice(line)
    written = dtype or reduce(torch.promote_types, [folder.dtype for folder in folders])
    rules = rule.all()
    trials = {name: _Trial(name, rules[name], written) for name in (rule.name, *rules)}
    result = {}
    for name in folders[0]:
        terms = [folder[name] for folder in folders]
        mean = mean_change(terms, shares)
        factors = {trial.name: trial.take(terms, shares, mean) for trial in trials.values()}
        if (chosen := factors[rule.name]) is None:
            raise UserError(f"--rule={rule.name}: layer {name} {trials[rule.name].reason}")
        result[name] = chosen
    others = _mean_of_others(folders, shares, dtype)
    with new_folder(out, "--out") as partial_folder:
        write_adapter(partial_folder, folders[0], result, others, backbone=backbone)
    return [trial.outcome() for trial in trials.values()]


class _Trial:
    """One rule over the layers, until it refuses one."""

    def __init__(self, name: str, rule: LayerRule, dtype: torch.dtype) -> None:
        self.name, self.reason = name, ""
        self._rule, self._dtype = rule, dtype
        self._distance = Distance()
        self._ranks: list[int] = []
        self._num_numbers = 0

    def take(self, terms: Sequence[Factors], shares: Sequence[float], mean: LowRank) -> Factors | None:
        """Return what the rule makes of a layer, as it would be written; None if it has refused one."""
        if self.reason:
            return None
        try:
            factors = cast(self._rule(terms, shares), self._dtype)
        except UserError as error:
            self.reason = str(error)
            return None
        if not (factors.a.isfinite().all() and factors.b.isfinite().all()):
            self.reason = f"does not fit into {self._dtype}; give --dtype=float32"
            return None
        self._distance.add(factors.change(), mean)
        self._ranks.append(factors.rank)
        self._num_numbers += factors.a.numel() + factors.b.numel()
        return factors

    def outcome(self) -> Outcome:
        """Return what came of it."""
        if self.reason:
            return Outcome(rule=self.name, reason=self.reason)
        ranks = min(self._ranks), max(self._ranks)
        return Outcome(rule=self.name, ranks=ranks, num_numbers=self._num_numbers, distance=self._distance.relative())


def _require_same(first: AdapterFolder, other: AdapterFolder, backbone: str | None) -> None:
    """Refuse two adapters that do not change the same layers of the same model."""
    if backbone is None and first.backbone and other.backbone and first.backbone != other.backbone:
        raise UserError(
            f"{other.path} was trained on {other.backbone} and {first.path} on {first.backbone}; give adapters of one "
            "model, or --base-model=NAME if these are the same"
        )
    for less, more in ((first, other), (other, first)):
        if lacking := [name for name in more if name not in less]:
            remedy = "give adapters with the same target modules"
            if less.path.name.isdigit():
                remedy = "peft leaves out layers of an adapter whose name is a number: save it under another name"
            raise UserError(
                f"{less.path} has no layer {lacking[0]}, which {more.path} has ({len(lacking)} such); {remedy}"
            )
    for name in first:
        ours, theirs = _shape(first, name), _shape(other, name)
        if ours != theirs:
            raise UserError(f"{other.path}: layer {name} is {theirs} (out, in), in {first.path} it is {ours}")
    if set(first.others) != set(other.others):
        key = sorted(set(first.others) ^ set(other.others))[0]
        raise UserError(f"{first.path} or {other.path} lacks {key}, which the other has trained; give both or neither")
    for key in first.others:
        if first.shape(key) != other.shape(key):
            raise UserError(f"{other.path}: {key} is {other.shape(key)}, in {first.path} it is {first.shape(key)}")


def _shape(folder: AdapterFolder, name: str) -> tuple[int, int]:
    a, b, _ = folder.factors[name]
    return folder.shape(b)[0], folder.shape(a)[1]


def _mean_of_others(
    folders: Sequence[AdapterFolder], shares: Sequence[float], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Return the weighted means of what was trained whole, in `dtype` or the finest of their own types."""
    means = {}
    for key in folders[0].others:
        tensors = [folder.tensor(key) for folder in folders]
        total = reduce(torch.add, [tensor.double() * share for tensor, share in zip(tensors, shares, strict=True)])
        means[key] = total.to(dtype or reduce(torch.promote_types, [tensor.dtype for tensor in tensors]))
    return means
