"""What a run has cost up to each round, so that any score can be drawn against any cost."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.store.records import trained


@dataclass(frozen=True, slots=True)
class Cost:
    """One axis: how it is called, its unit, the keys of a round's record that make it, and their factor."""

    heading: str
    unit: str
    key: str
    factor: float = 1.0


COSTS: Mapping[str, Cost] = {
    "uploaded_mb": Cost("uploaded", "MB, all clients", "communication/uplink_bytes", 1e-6),
    "downloaded_mb": Cost("downloaded", "MB, all clients", "communication/downlink_bytes", 1e-6),
    "client_s": Cost("local training", "client-seconds", "time/clients_s"),
    "tokens": Cost("trained on", "tokens", "clients/num_tokens"),
    "wall_s": Cost("wall time", "s", "time/round_s"),
    "device_hours": Cost("devices", "device-hours", "time/devices_s", 1 / 3600),
}
"""By name; `cost/<name>` is the key of the sum over all rounds so far. Device-hours are GPU-hours on GPUs."""


def cumulative_costs(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return `cost/<name>` up to and with each record, in their order.

    A cost that a trained round of the run does not tell is left out everywhere, rather than counted as nothing; the
    untrained model's evaluation costs wall time only.
    """
    rounds = trained(records)
    known = {name: cost for name, cost in COSTS.items() if all(cost.key in record for record in rounds)}
    rows: list[dict[str, float]] = [{} for _ in records]
    for name, cost in known.items():
        totals = itertools.accumulate(record.get(cost.key, 0) for record in records)
        for row, total in zip(rows, totals, strict=True):
            row[f"cost/{name}"] = cost.factor * total
    return rows
