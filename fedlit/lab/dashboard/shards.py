"""Who held which labels: every distinct partition of the runs once, however many runs share it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.client_names import labels, names_in
from fedlit.lab.analysis.collection import Entry
from fedlit.lab.analysis.draws import Repeat, repeat_of
from fedlit.lab.dashboard.series import rounded

MAX_LABELS = 20
MAX_CLIENTS = 200
"""Of more clients every k-th is shown: a page draws them one by one."""
NO_LABEL = "rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shards:
    """One partition. clients: those that are shown. names: what each of them is called; none where nobody has a name.
    draws: of the partition, where they are an axis. counts: rows by client, then by label in the order of its data set.
    skew: the Jensen-Shannon divergence of the clients' labels that partition.json tells.
    """

    title: str
    seeds: list[int]
    draws: list[int]
    clients: list[int]
    names: list[str]
    counts: list[list[int]]
    skew: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledData:
    """The partitions of one data set. labels: by falling total; beyond 20 the rarest are one, `other (n labels)`."""

    data: str
    column: str
    labels: list[str]
    has_other: bool
    shards: list[Shards]


def label_distributions(entries: Sequence[Entry]) -> list[LabelledData]:
    """Return the partitions of these runs by data set, in the order of the first run of each."""
    by_data: dict[tuple[str, str], dict[str, list[Entry]]] = {}
    for entry in entries:
        if entry.partition is None:
            continue
        rows = entry.partition
        same_data = by_data.setdefault((str(rows.get("data", "")), str(rows.get("label") or "")), {})
        same_data.setdefault(f"{rows.get('shards_sha256')} {_counts(rows)} {names_in(rows)}", []).append(entry)
    return [_labelled(data, column, list(groups.values())) for (data, column), groups in by_data.items()]


def _labelled(data: str, column: str, groups: Sequence[Sequence[Entry]]) -> LabelledData:
    counts = [_counts(entries[0].partition or {}) for entries in groups]
    totals: Counter[str] = Counter()
    for client in (client for clients in counts for client in clients):
        totals.update(client)
    ordered = sorted((label for label in totals if totals[label]), key=lambda label: (-totals[label], label))
    has_other = len(ordered) > MAX_LABELS
    kept, rest = (ordered[:MAX_LABELS], ordered[MAX_LABELS:]) if has_other else (ordered, [])
    return LabelledData(
        data=data,
        column=column,
        labels=[label or "(blank)" for label in kept] + ([f"other ({len(rest)} labels)"] if has_other else []),
        has_other=has_other,
        shards=[
            Shards(
                title=_title(entries),
                seeds=sorted({int(entry.settings["seed"]) for entry in entries if "seed" in entry.settings}),
                draws=sorted({found.draw for each in entries if isinstance(found := repeat_of(each), Repeat)}),
                clients=list(range(0, len(clients), _step(len(clients)))),
                names=list(labels(names_in(entries[0].partition))[:: _step(len(clients))]),
                counts=[
                    [client.get(label, 0) for label in kept]
                    + ([sum(client.get(label, 0) for label in rest)] if has_other else [])
                    for client in clients[:: _step(len(clients))]
                ],
                skew=_skew(entries[0].partition or {}),
            )
            for entries, clients in zip(groups, counts, strict=True)
        ],
    )


def _counts(partition: Mapping[str, Any]) -> list[dict[str, int]]:
    """Return the rows of each client by label, all its parts together; all under one name without labels."""
    clients, parts = [], ("train", "test", "validation")
    for client in partition.get("clients", ()):
        labels = sum((Counter(client.get(f"{part}_labels") or {}) for part in parts), Counter())
        clients.append(dict(labels) or {NO_LABEL: sum(client.get(f"num_{part}", 0) for part in parts)})
    return clients


def _step(num_clients: int) -> int:
    return -(-num_clients // MAX_CLIENTS) or 1


def _title(entries: Sequence[Entry]) -> str:
    """Return how many clients there are and how the rows were dealt to them."""
    num_clients = len((entries[0].partition or {}).get("clients", ()))
    config = entries[0].config
    dealt = config.partition.name if config else ""
    if config and dealt in {"dirichlet", "quantity", "topics"}:
        dealt = f"{dealt}, alpha {config.partition.alpha:g}"
    num_shown = len(range(0, num_clients, _step(num_clients)))
    shown = "" if num_shown == num_clients else f"{num_shown} of "
    return " · ".join(part for part in (f"{shown}{num_clients} client{'s' if num_clients != 1 else ''}", dealt) if part)


def _skew(partition: Mapping[str, Any]) -> float | None:
    value = (partition.get("heterogeneity") or {}).get("jensen_shannon")
    return None if value is None else rounded(float(value))
