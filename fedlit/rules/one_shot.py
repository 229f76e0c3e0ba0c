"""`fedlit aggregate`: folders of adapters in, one adapter out, and what every rule would have given.

The layers go by one after the other: one layer of all inputs and of the results is in memory, and what is written goes
to the file at once.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import torch

from fedlit.errors import UserError
from fedlit.process.whole_folder import new_folder
from fedlit.rules import of_layers
from fedlit.rules.factors import Factors, mean_change, normalized
from fedlit.rules.folders import read_adapter_folder
from fedlit.rules.of_adapters import require_sizes
from fedlit.rules.together import means_of_others, require_same
from fedlit.rules.trials import LayerRule, Outcome, Trial
from fedlit.rules.writing import AdapterWriter


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule by its name: `fedit`, `hetlora`, `flexlora`, `fedex`, `flora`, `lora_fair` or `fedrot`.

    rank, energy: of flexlora. residual_rank: of fedex. regularization: of lora_fair. align: of fedrot. See
    `fedlit.rules.of_layers`.

    Raises:
        UserError: an option out of range.
    """

    name: str
    rank: int | None = None
    energy: float | None = None
    residual_rank: int | None = None
    regularization: float = 0.01
    align: str = "a"

    def __post_init__(self) -> None:
        require_sizes(
            rank=self.rank,
            energy=self.energy,
            residual_rank=self.residual_rank,
            regularization=self.regularization,
            align=self.align,
        )
        if self.name not in self.all():
            raise UserError(f"{self.name} is no rule; choose one of {', '.join(self.all())}")

    def all(self) -> Mapping[str, LayerRule]:
        """Return every rule by its name, the options given to those that take them."""
        return {
            "fedit": of_layers.fedit,
            "hetlora": of_layers.hetlora,
            "flexlora": partial(of_layers.flexlora, rank=self.rank, energy=self.energy),
            "fedex": partial(of_layers.fedex, residual_rank=self.residual_rank),
            "flora": of_layers.flora,
            "lora_fair": partial(of_layers.lora_fair, regularization=self.regularization),
            "fedrot": partial(of_layers.fedrot, align=self.align),
        }

    def residual(self) -> LayerRule:
        """Return what stands beside the mean of the factors where fedex writes two adapters."""
        return partial(of_layers.fedex_residual, residual_rank=self.residual_rank)


def aggregate_folders(
    paths: Sequence[Path],
    weights: Sequence[float],
    out: Path,
    rule: Rule,
    *,
    residual: Path | None = None,
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
        residual: with the rule fedex a second new folder: `out` has the mean of the factors then, and this one what
            they miss. Both act together, as one adapter of higher rank does otherwise.
        dtype: of the result; None for the finest among the adapters'.
        backbone: the model of all of them, where their own notes of it differ.
        notice: is told lines that a person should read.

    Raises:
        UserError: names the folder and what does not fit; nothing is written then.
    """
    if residual is not None:
        _require_residual(rule, residual, out)
    shares = normalized(weights, len(paths))
    folders = [read_adapter_folder(path) for path in paths]
    for folder in folders[1:]:
        require_same(folders[0], folder, backbone)
    for line in (line for folder in folders for line in folder.notices):
        notice(line)
    written = dtype or reduce(torch.promote_types, [folder.dtype for folder in folders])
    trials = [Trial(name, each, written) for name, each in rule.all().items() if name != rule.name]
    if residual is None:
        trials.insert(0, Trial(rule.name, rule.all()[rule.name], written))
    else:
        trials.insert(0, Trial(rule.name, of_layers.fedit, written, beside=rule.residual()))
    with ExitStack() as opened:
        writers: list[AdapterWriter] = []
        for place, option in ((out, "--out"), (residual, "--residual")):
            if place is not None:
                into = opened.enter_context(new_folder(place, option))
                writer = AdapterWriter(into, folders[0], backbone=backbone, whole=not writers)
                writers.append(opened.enter_context(writer))
        for name in folders[0]:
            parts = _parts(name, [folder[name] for folder in folders], shares, trials)
            for writer, factors in zip(writers, parts, strict=True):
                writer.add(name, factors)
        for key, tensor in means_of_others(folders, shares, dtype):
            writers[0].add_other(key, tensor)
    return [trial.outcome() for trial in trials]


def _parts(
    name: str, terms: Sequence[Factors], shares: Sequence[float], trials: Sequence[Trial]
) -> tuple[Factors, ...]:
    """Give a layer to all rules, and return what the first of them makes of it."""
    mean = mean_change(terms, shares)
    values = mean.singular_values()
    parts, *_ = [trial.take(terms, shares, mean, values) for trial in trials]
    if not parts:
        raise UserError(f"--rule={trials[0].name}: layer {name} {trials[0].reason}")
    return parts


def _require_residual(rule: Rule, residual: Path, out: Path) -> None:
    if rule.name != "fedex":
        raise UserError(f"--residual belongs to --rule=fedex, not to {rule.name}; leave it out")
    if rule.residual_rank == 0:
        raise UserError("--residual-rank=0 leaves nothing for --residual; give 1 or more, or leave --residual out")
    if residual.absolute() == out.absolute():
        raise UserError(f"--out and --residual are both {out}; give two folders")
