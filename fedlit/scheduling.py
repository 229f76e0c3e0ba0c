"""The rounds of a run, before any of them: who takes part in each, and what they will have told of each client."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedlit.client.host import ModelHost
from fedlit.client.row_order import steps_of_epochs
from fedlit.config import RunConfig
from fedlit.planning import Plan
from fedlit.privacy.claim import make_claim
from fedlit.registry import option_names, registered
from fedlit.round.plan import AVAILABILITIES, SAMPLINGS, Schedule
from fedlit.round.private_rounds import PrivateRounds


def make_schedule(plan: Plan, host: ModelHost) -> Schedule:
    """Return the plans of all rounds."""
    cohort = plan.inputs.config.cohort
    return Schedule(
        seed=plan.inputs.config.seed,
        num_examples=tuple(len(shard.train) for shard in plan.clients),
        cohort_size=plan.cohort_size,
        weigh=plan.method.weights,
        trains=host.trains,
        sampling=_cohort_part("sampling", SAMPLINGS, cohort.sampling, cohort.options),
        availability=_cohort_part("availability", AVAILABILITIES, cohort.availability, cohort.options),
        fixes_number=plan.inputs.config.privacy.unit == "client",
    )


def _cohort_part(kind: str, own: Mapping[str, Callable[..., Any]], name: str, options: Mapping[str, Any]) -> Any:
    """Return a part of the round's plan with those options that are its own; names and options are checked before."""
    factory = {**own, **registered(kind)}[name]
    known = option_names(factory)
    return factory(**{key: value for key, value in options.items() if key in known})


def make_privacy(plan: Plan, schedule: Schedule) -> PrivateRounds | None:
    """Return the privacy of a run's rounds, its noise made to fit; None where nothing is hidden.

    Raises:
        UserError: no noise keeps within the epsilon that is asked for.
    """
    config = plan.inputs.config
    if config.privacy.unit == "none" and not config.privacy.secure_aggregation:
        return None
    return PrivateRounds(
        config=config,
        rule=plan.method.rule,
        claim=make_claim(config, schedule.num_examples, most_steps(plan, schedule)),
        num_steps=lambda client_id: steps_of(config, schedule.num_examples[client_id], plan.num_step_multiples),
    )


def most_steps(plan: Plan, schedule: Schedule) -> Sequence[int]:
    """Return the local steps of every client in all rounds, if nobody is lost; they matter to an example's privacy."""
    config, totals = plan.inputs.config, [0] * schedule.num_clients
    if config.privacy.unit != "example":
        return totals
    for round_idx in range(config.num_rounds):
        for client_id in schedule.plan(round_idx).arriving:
            totals[client_id] += steps_of(config, schedule.num_examples[client_id], plan.num_step_multiples)
    return totals


def steps_of(config: RunConfig, num_rows: int, num_multiples: int) -> int:
    """Return the local steps of a client with so many rows in one round."""
    local = config.local
    if local.epochs is not None:
        return steps_of_epochs(num_rows, local.batch_size * local.accumulate, local.epochs)
    assert local.steps is not None
    return local.steps * num_multiples
