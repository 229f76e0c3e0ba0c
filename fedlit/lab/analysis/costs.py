"""What a run has cost up to each round, so that any score can be drawn against any cost."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlit.scores import number
from fedlit.store.records import trained


@dataclass(frozen=True, slots=True)
class Cost:
    """One axis: how it is called, its unit, the key of a round's record that makes it, and a factor.

    is_level: the key already tells what was spent up to and with its round; else it tells of its round alone, and the
    cost is the sum.
    """

    heading: str
    unit: str
    key: str
    factor: float = 1.0
    is_level: bool = False


COSTS: Mapping[str, Cost] = {
    "uploaded_mb": Cost("uploaded", "MB, all clients", "communication/uplink_bytes", 1e-6),
    "downloaded_mb": Cost("downloaded", "MB, all clients", "communication/downlink_bytes", 1e-6),
    "client_s": Cost("local training", "client-seconds", "time/clients_s"),
    "tokens": Cost("trained on", "tokens", "clients/num_tokens"),
    "wall_s": Cost("wall time", "s", "time/round_s"),
    "device_hours": Cost("devices", "device-hours", "time/devices_s", 1 / 3600),
    "simulated_s": Cost("simulated time", "s", "clock/round_s"),
    "epsilon": Cost("privacy loss", "epsilon", "privacy/epsilon", is_level=True),
}
"""By name; `cost/<name>` is the key of what all rounds so far have cost. Device-hours are GPU-hours on GPUs."""


def cumulative_costs(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return `cost/<name>` up to and with each record, in their order.

    A cost that a trained round of the run does not tell is left out everywhere, rather than counted as nothing; the
    untrained model's evaluation costs wall time only. Before the first trained round every sum is 0, as if it were
    told, and a level only where the untrained model's record tells it. A level that is no finite number is left out of
    its round: an epsilon without noise has no place on an axis.
    """
    rounds = trained(records)
    known = {
        name: cost
        for name, cost in COSTS.items()
        if all(cost.key in record for record in rounds)
        and (not cost.is_level or any(cost.key in record for record in records))
    }
    rows: list[dict[str, float]] = [{} for _ in records]
    for name, cost in known.items():
        for row, total in zip(rows, _totals(cost, records), strict=True):
            if total is not None:
                row[f"cost/{name}"] = cost.factor * total
    return rows


def _totals(cost: Cost, records: Sequence[Mapping[str, Any]]) -> list[float | None]:
    if cost.is_level:
        return [number(record.get(cost.key, 0)) for record in records]
    return list(itertools.accumulate(record.get(cost.key, 0) for record in records))
