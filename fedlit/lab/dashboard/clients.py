"""The curves of single clients, run by run: how far apart they are, and whose score falls behind."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedlit.client_names import labels, names_in
from fedlit.lab.analysis.collection import Entry
from fedlit.lab.dashboard.series import Column, rounded
from fedlit.scores import SCORES, number

MOST_CLIENTS = 40
"""Lines of one chart; of more clients the first are drawn, and the page says so."""

_KEY = re.compile(r"client/([0-9]+)/(.+)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientScore:
    """One number of every client of a run. lines: by client, at the run's `rounds`; None where it is not recorded."""

    heading: str
    unit: str
    lines: list[Column]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunClients:
    """The clients of one run. names: what to call each that is drawn; num_clients: all that the records have."""

    run: str
    names: list[str]
    num_clients: int
    rounds: list[int]
    scores: list[ClientScore]


def client_curves(entries: Sequence[Entry], scales: Mapping[str, float]) -> list[RunClients]:
    """Return the runs whose records hold numbers of single clients, in their order.

    scales: what is shown for a score of 1, by its name; 1 where nothing is said.
    """
    found = [_of_run(entry, scales) for entry in entries]
    return [run for run in found if run.scores]


def _of_run(entry: Entry, scales: Mapping[str, float]) -> RunClients:
    values: dict[str, dict[int, dict[int, float]]] = {}
    for record in entry.records:
        for key, found in record.items():
            match = _KEY.fullmatch(key)
            if match and _heading(match[2]) and (value := number(found)) is not None:
                scale = scales.get(_score(match[2]), 1.0)
                values.setdefault(match[2], {}).setdefault(int(match[1]), {})[int(record["round"])] = value * scale
    ids = sorted({client_id for clients in values.values() for client_id in clients})
    names = labels(names_in(entry.partition or {}))
    rounds = sorted({r for clients in values.values() for points in clients.values() for r in points})
    return RunClients(
        run=entry.name,
        names=[_name(names, client_id) for client_id in ids[:MOST_CLIENTS]],
        num_clients=len(ids),
        rounds=rounds,
        scores=[
            ClientScore(
                heading=_heading(key) or key,
                unit=_unit(key, scales),
                lines=[_column(values[key].get(client_id, {}), rounds) for client_id in ids[:MOST_CLIENTS]],
            )
            for key in values
        ],
    )


def _column(points: Mapping[int, float], rounds: Sequence[int]) -> Column:
    return [rounded(points[r]) if r in points else None for r in rounds]


def _name(names: Sequence[str], client_id: int) -> str:
    return names[client_id] if client_id < len(names) else f"client {client_id}"


def _score(key: str) -> str:
    """Return the score of a client's key, as `loss` of `train_loss` and `own/loss`."""
    return "loss" if key == "train_loss" else key.rpartition("/")[2]


def _heading(key: str) -> str | None:
    """Return what to call a client's number; None for what is no score."""
    if key == "train_loss":
        return "training loss"
    score = SCORES.get(_score(key))
    place = key.partition("/")[0] if "/" in key else ""
    return f"{place} {score.heading}".strip() if score else None


def _unit(key: str, scales: Mapping[str, float]) -> str:
    score = _score(key)
    scale = scales.get(score, 1.0)
    return SCORES[score].unit if scale == 1.0 else f"{SCORES[score].unit} × {scale:g}"
