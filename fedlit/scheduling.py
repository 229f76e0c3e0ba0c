"""The plans of a run's rounds, before any of them."""

from collections.abc import Callable, Mapping
from typing import Any

from fedlit.planning import Plan
from fedlit.registry import option_names, registered
from fedlit.round.canaries import Canaries, WithoutThoseOut
from fedlit.round.plan import AVAILABILITIES, SAMPLINGS, Schedule

Trains = Callable[[int], frozenset[str]]


def _nothing(_round_idx: int) -> frozenset[str]:
    return frozenset()


def make_schedule(plan: Plan, trains: Trains = _nothing) -> Schedule:
    """Return the plans of all rounds; an audit's canaries stand after the clients.

    trains: what trains in a round (ModelHost.trains), for who asks for more than who takes part.
    """
    cohort, canaries = plan.inputs.config.cohort, make_canaries(plan)
    sampling = _cohort_part("sampling", SAMPLINGS, cohort.sampling, cohort.options)
    return Schedule(
        seed=plan.inputs.config.seed,
        num_examples=(*(len(shard.train) for shard in plan.clients), *(0 for _ in canaries.clients if canaries.num)),
        cohort_size=plan.cohort_size,
        weigh=plan.method.weights,
        trains=trains,
        sampling=WithoutThoseOut(inner=sampling, canaries=canaries) if canaries.num else sampling,
        availability=_cohort_part("availability", AVAILABILITIES, cohort.availability, cohort.options),
        fixes_number=plan.inputs.config.privacy.unit == "client",
    )


def _cohort_part(kind: str, own: Mapping[str, Callable[..., Any]], name: str, options: Mapping[str, Any]) -> Any:
    """Return a part of the round's plan with those options that are its own; names and options are checked before."""
    factory = {**own, **registered(kind)}[name]
    known = option_names(factory)
    return factory(**{key: value for key, value in options.items() if key in known})


def make_canaries(plan: Plan) -> Canaries:
    """Return the canaries of a run, none without an audit."""
    config = plan.inputs.config
    return Canaries(seed=config.seed, first=len(plan.clients), num=config.privacy.canaries)
