"""What a record says of who took part in a round."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.round.plan import RoundPlan
from fedlit.round.work import LocalWork


def reports_of(everyone: Sequence[LocalWork]) -> dict[int, Mapping[str, float]]:
    """Return the metrics of every client whose result was summed, from all processes' work."""
    return {client_id: metrics for part in everyone for client_id, metrics in part.reports.items()}


def round_record(plan: RoundPlan, everyone: Sequence[LocalWork]) -> dict[str, Any]:
    """Return a round's record as far as its clients fill it: their own numbers, who came, and the simulated clock."""
    reports = reports_of(everyone)
    record: dict[str, Any] = {"round": plan.round_idx + 1, "time/clients_s": sum(part.clients_s for part in everyone)}
    if all("num_tokens" in metrics for metrics in reports.values()):
        record["clients/num_tokens"] = sum(metrics["num_tokens"] for metrics in reports.values())
    for client_id in sorted(reports):
        record.update({f"client/{client_id}/{name}": value for name, value in reports[client_id].items()})
    failed = {client_id for part in everyone for client_id in part.lost}
    late = {*plan.missed, *plan.late} - failed
    # Of those who began earlier, the ones whose training had failed then.
    lost = sorted(({*plan.invited} | plan.began.keys()) - reports.keys() - late)
    record |= {"clients/lost": lost} if lost else {}
    return record | (_coming(plan, sorted(reports), sorted(late)) if plan.watched else {})


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
