"""What a record says of a round: who took part, and what the server made of it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fedlit.algebra.tensors import distance
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState
from fedlit.round.work import LocalWork

Reports = Mapping[int, Mapping[str, float]]
"""The metrics of every client whose result was summed."""


def reports_of(everyone: Sequence[LocalWork]) -> dict[int, Mapping[str, float]]:
    """Return the reports of all processes' work."""
    return {client_id: metrics for part in everyone for client_id, metrics in part.reports.items()}


def record_of_work(plan: RoundPlan, everyone: Sequence[LocalWork]) -> dict[str, Any]:
    """Return a round's record as far as its clients fill it."""
    failed = {client_id for part in everyone for client_id in part.lost}
    record = record_of_clients(plan, reports_of(everyone), failed)
    return record | {"time/clients_s": sum(part.clients_s for part in everyone)}


def record_of_clients(plan: RoundPlan, reports: Reports, failed: Collection[int] = ()) -> dict[str, Any]:
    """Return what a round's record says of its clients: their own numbers, who came, and the simulated clock.

    failed: those whose training came to nothing, where results may come in a later round.
    """
    record: dict[str, Any] = {"round": plan.round_idx + 1}
    if all("num_tokens" in metrics for metrics in reports.values()):
        record["clients/num_tokens"] = sum(metrics["num_tokens"] for metrics in reports.values())
    for client_id in sorted(reports):
        record.update({f"client/{client_id}/{name}": value for name, value in reports[client_id].items()})
    late = {*plan.missed, *plan.late} - {*failed}
    # Of those who began earlier, the ones whose training had failed then.
    lost = sorted(({*plan.invited} | plan.began.keys()) - reports.keys() - late)
    record |= {"clients/lost": lost} if lost else {}
    return record | (_coming(plan, sorted(reports), sorted(late)) if plan.watched else {})


def record_of_step(before: ServerState, after: ServerState, num_clients: int, digest: str) -> dict[str, Any]:
    """Return what a round's record says of the server's step; `digest` is the checksum of all parts of `after`."""
    return {
        "aggregation/num_clients": num_clients,
        "aggregation/update_norm": distance(after.shared, before.shared),
        "aggregation/checksum": digest[:16],
    }


def _coming(plan: RoundPlan, arrived: list[int], late: list[int]) -> dict[str, Any]:
    """Return who was invited, came and was late, and what the clock shows."""
    record: dict[str, Any] = {"clients/invited": list(plan.invited), "clients/arrived": arrived}
    if late:
        record["clients/late"] = late
    if plan.began:
        record["clients/staleness"] = [plan.staleness(client_id) for client_id in arrived]
    if plan.round_s is not None:
        record["clock/round_s"] = plan.round_s
    return record
