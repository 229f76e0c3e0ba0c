"""Kinds of cells: those that take the same work, which differ in seeds, draws and rates alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.config import Cell
from fedlit.config.grid import Settings, naming_keys
from fedlit.config.keys import REPEATS, show

WITHOUT_WORK = frozenset(
    {
        *REPEATS,
        *("local.lr", "local.schedule", "local.schedule_over", "local.warmup", "local.weight_decay"),
        *("local.label_smoothing", "server.lr", "server.beta1", "server.beta2", "server.tau"),
        *("eval.score", "eval.choose_on"),
    }
)
"""Keys whose value changes neither how much is computed nor how much is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Cells of the same work.

    name: what tells it from other kinds of the sweep; `all` of a single kind. cells: places in the sweep, from 0.
    """

    name: str
    settings: Settings
    cells: tuple[int, ...]

    @property
    def first(self) -> int:
        """The cell that is rehearsed for all of them."""
        return self.cells[0]


def kinds_of(cells: Sequence[Cell]) -> list[Kind]:
    """Return the kinds of a sweep's cells, in the order of their first."""
    places: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        places.setdefault(repr(sorted(_of_work(cell.settings).items(), key=lambda item: item[0])), []).append(place)
    settings = [_of_work(cells[found[0]].settings) for found in places.values()]
    keys = naming_keys(settings)
    return [
        Kind(name=_name(each, keys) or "all", settings=each, cells=tuple(found))
        for each, found in zip(settings, places.values(), strict=True)
    ]


def axes_of(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    """Return the values of every key that has several, in the order of the sweep."""
    keys = dict.fromkeys(key for cell in cells for key in cell.settings)
    values = {key: _distinct([cell.settings[key] for cell in cells if key in cell.settings]) for key in keys}
    return {key: found for key, found in values.items() if len(found) > 1}


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({repr(value): value for value in values}.values())


def _of_work(settings: Settings) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in WITHOUT_WORK}


def _name(settings: Settings, keys: Sequence[str]) -> str:
    """Return `fedit, lora_rank 8`: texts of the groups as they stand, others after the last part of their key."""
    return ", ".join(
        str(settings[key]) if isinstance(settings[key], str) else f"{key.rsplit('.', 1)[-1]} {show(settings[key])}"
        for key in keys
        if key in settings
    )
