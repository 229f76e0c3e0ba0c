"""A draw is one partition of the rows among the clients, a seed one training on it: both repeat a setting.

The draw is `partition.seed`, or the run's `seed` where that is null. Runs that differ in nothing else are of one
setting: its value is the mean over draws, each the mean over its seeds.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fedlit.config.keys import DRAW, SEED

if TYPE_CHECKING:
    from fedlit.lab.analysis.collection import Entry

T = TypeVar("T")


class Repeat(NamedTuple):
    """Which repetition a run is, where draws are an axis; `seed` is None where seeds are none."""

    draw: Any
    seed: Any

    def __str__(self) -> str:
        return str(self.draw) if self.seed is None else f"{self.draw}/{self.seed}"


def repeat_of(entry: "Entry") -> Any:
    """Return what tells a run from the others of its setting: its seed, or its `Repeat` where draws are an axis; None
    where nothing tells them apart, which is the same for a cell that has no run yet.
    """
    seed = entry.settings.get(SEED)
    if DRAW not in entry.settings:
        return seed
    draw = entry.settings[DRAW]
    return Repeat(draw=seed if draw is None else draw, seed=seed)


def draw_of(entry: "Entry") -> Any:
    """Return the draw of a run, whether it is an axis or not."""
    draw, seed, config = entry.settings.get(DRAW), entry.settings.get(SEED), entry.config
    if draw is None and config is not None:
        draw, seed = config.partition.seed, config.seed if seed is None else seed
    return seed if draw is None else draw


def by_draw(values: Mapping[Any, T]) -> list[list[T]]:
    """Return values by repetition in groups of one draw. Where draws are no axis, every seed is a group of its own."""
    groups: dict[Any, list[T]] = {}
    for repeat, value in values.items():
        groups.setdefault(repeat.draw if isinstance(repeat, Repeat) else repeat, []).append(value)
    return list(groups.values())


def of_draws(values: Mapping[Any, float]) -> list[float]:
    """Return what mean and deviation are over: the mean of every draw, or the seeds where there is one draw only."""
    groups = by_draw(values)
    return [statistics.fmean(group) for group in groups] if len(groups) > 1 else list(values.values())


def several_draws(entries: Sequence["Entry"]) -> bool:
    """Tell whether draws are an axis of these runs: what is shown of them is of draws then, else of seeds."""
    return len({found.draw for entry in entries if isinstance(found := repeat_of(entry), Repeat)}) > 1


def words(repeat: Any) -> str:
    """Return a repetition as a person reads it: `seed 1`, `draw 3 seed 1`."""
    if not isinstance(repeat, Repeat):
        return f"seed {repeat}"
    return f"draw {repeat.draw}" if repeat.seed is None else f"draw {repeat.draw} seed {repeat.seed}"


def counted(settings: Sequence[Sequence[Any]]) -> str:
    """Return how many repetitions some settings have: `3 seeds`, `1 to 3 seeds`, `10 draws x 2 seeds`."""
    groups = [by_draw({repeat: repeat for repeat in repeats}) for repeats in settings if repeats]
    if not any(len(found) > 1 and isinstance(found[0][0], Repeat) for found in groups):
        return f"{_range([len(repeats) for repeats in settings if repeats])} seeds"
    draws = f"{_range([len(found) for found in groups])} draws"
    if all(repeat.seed is None for found in groups for draw in found for repeat in draw):
        return draws
    seeds = _range([len(draw) for found in groups for draw in found])
    return f"{draws} x {seeds} seed{'' if seeds == '1' else 's'}"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return str(low) if low == high else f"{low} to {high}"
