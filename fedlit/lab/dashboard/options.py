"""In what the configurations of the runs differ, key by key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.config import fingerprint
from fedlit.config.keys import show
from fedlit.lab.analysis.collection import Entry
from fedlit.lines import cut

ABSENT = "–"
"""Of a key that a run's method does not have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The keys that are not the same in all runs. values: of each key, its text in each run."""

    runs: list[str]
    keys: list[str]
    values: list[list[str]]


def differing_options(entries: Sequence[Entry]) -> Options:
    """Return the keys that determine a run's result and have several values among the runs."""
    configs = [(entry.name, fingerprint(entry.config)) for entry in entries if entry.config]
    keys = dict.fromkeys(key for _, config in configs for key in config)
    texts = {key: [_text(config, key) for _, config in configs] for key in keys}
    kept = [key for key in keys if len(set(texts[key])) > 1]
    return Options(runs=[name for name, _ in configs], keys=kept, values=[texts[key] for key in kept])


def _text(config: dict[str, Any], key: str) -> str:
    return cut(show(config[key])) if key in config else ABSENT
