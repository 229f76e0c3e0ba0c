"""Where the runs of a sweep differ from its experiment: what was overridden on their command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlit.config import Cell, RunConfig, fingerprint, load_config, load_sweep
from fedlit.config.keys import show
from fedlit.config.loading import list_choices
from fedlit.config.record import flat_values
from fedlit.data.paths import DATA_PATHS
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection, Entry

SHOWN = 6
"""Keys that are named; of more, how many there are."""


def departures(collection: Collection, config_dir: Path) -> list[str]:
    """Return one note on the settings in which runs differ from the sweep's files, if any does.

    Of every method the first run that has begun is looked at: what a user overrides goes to all cells.
    """
    if collection.name not in list_choices(config_dir, "sweep"):
        return []
    by_settings = {_key(cell.settings): cell for cell in load_sweep(collection.name, config_dir).cells()}
    changed: dict[str, None] = {}
    for entry in _first_of_each_method(collection):
        cell = by_settings.get(_key(entry.settings))
        if cell is not None and entry.config is not None:
            changed |= dict.fromkeys(_changes(entry.config, cell, config_dir))
    if not changed:
        return []
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return [f"Warning: runs differ from the protocol of the sweep's files: {'; '.join(list(changed)[:SHOWN])}{more}."]


def _first_of_each_method(collection: Collection) -> list[Entry]:
    first: dict[str, Entry] = {}
    for entry in collection.entries:
        if entry.config is not None:
            first.setdefault(str(entry.settings.get("method")), entry)
    return list(first.values())


def _changes(config: RunConfig, cell: Cell, config_dir: Path) -> list[str]:
    # The sweep's files leave paths to the user; they have no influence, and the rows may be elsewhere today.
    values = flat_values(config)
    paths = [f"{key}={Path(__file__)}" for key in DATA_PATHS if values[key] is not None]
    try:
        theirs, ours = fingerprint(load_config([*cell.arguments, *paths], config_dir)), fingerprint(config)
    except UserError as error:
        return [f"{cell.name} cannot be compared ({error})"]
    return [
        f"{key} is {_short(ours.get(key))}, not {_short(theirs.get(key))}"
        for key in {**theirs, **ours}
        if (key in ours, ours.get(key)) != (key in theirs, theirs.get(key))
    ]


def _short(value: Any) -> str:
    text = show(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted((key, repr(value)) for key, value in settings.items()))
