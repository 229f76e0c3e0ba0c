"""Where every value of a run comes from: `fedlit run --explain`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.config.keys import SCHEMA, as_argument
from fedlit.config.loading import DEFAULT_CHOICES, Pick, Resolved
from fedlit.config.record import flat_values, run_folder
from fedlit.config.schema import RunConfig
from fedlit.config.tree import Setting
from fedlit.recipes import options_taken


@dataclass(frozen=True, slots=True)
class Said:
    """One value, and who says so."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Explained:
    """A key or a group. above: what counts. below: what was overridden, that which comes nearest first."""

    key: str
    above: Said
    below: tuple[Said, ...] = ()


def explain(resolved: Resolved) -> tuple[list[Explained], list[Explained]]:
    """Return every value that is not the schema's default, or hides one that is not, in the schema's order, the
    method's options among them; and every group that is picked.
    """
    said: dict[str, list[Said]] = {}
    for setting in resolved.settings:
        said.setdefault(setting.key, []).append(_said(setting))
    defaults = {key: value for key, value in flat_values(RunConfig()).items() if key in SCHEMA}
    defaults |= {f"method.{name}": option.default for name, option in options_taken(resolved.config.method).items()}
    values: list[Explained] = []
    for key, value in flat_values(resolved.config).items():
        others = said.get(key, [])
        origin = others[-1].origin if others else "default"
        below = tuple(other for other in reversed(others[:-1]) if other.value != value)
        if key not in defaults or value != defaults[key] or below:
            values.append(Explained(key, Said(value, origin), below))
    groups: dict[str, list[Pick]] = {}
    for pick in resolved.picks:
        groups.setdefault(pick.group, []).append(pick)
    return values, [_picked(group, groups[group]) for group in (*DEFAULT_CHOICES, "experiment") if group in groups]


def explanation(resolved: Resolved) -> str:
    """Return the explanation as lines `local.lr = 0.01  (command line; configs/experiment/demo.yaml says 0.001)`."""
    values, groups = explain(resolved)
    lines = ["values that are not the schema's defaults:", *map(_line, values)]
    lines += ["", "files:", *(map(_line, groups) if groups else ["  none: a whole configuration needs none"])]
    return "\n".join([*lines, "", f"run folder: {run_folder(resolved.config)}", ""])


def explanation_json(resolved: Resolved) -> str:
    """Return the explanation as JSON: `values` and `groups`, each by name with value, origin and what it hides."""
    parts = dict(zip(("values", "groups"), explain(resolved), strict=True))
    content: dict[str, Any] = {
        name: {
            entry.key: {**_as_json(entry.above), "overrides": [_as_json(other) for other in entry.below]}
            for entry in entries
        }
        for name, entries in parts.items()
    }
    return json.dumps({**content, "folder": str(run_folder(resolved.config))}, indent=2) + "\n"


def _said(setting: Setting) -> Said:
    return Said(setting.value, setting.origin)


def _picked(group: str, picks: Sequence[Pick]) -> Explained:
    above, *below = [Said(pick.choice, pick.origin) for pick in reversed(picks)]
    others = tuple(other for other in below if other.value != above.value and other.origin != "default")
    return Explained(group, above, others)


def _as_json(said: Said) -> Mapping[str, Any]:
    return {"value": said.value, "from": said.origin}


def _line(entry: Explained) -> str:
    others = "".join(f"; {other.origin} says {as_argument(other.value)}" for other in entry.below)
    return f"  {entry.key} = {as_argument(entry.above.value)}  ({entry.above.origin}{others})"
