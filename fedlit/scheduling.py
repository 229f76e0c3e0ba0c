"""The plans of a run's rounds, before any of them."""

from collections.abc import Callable, Mapping
from typing import Any

from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.planning import Plan
from fedlit.registry import option_names, registered
from fedlit.round.availability.base import Availability, Work
from fedlit.round.availability.parts import AVAILABILITIES
from fedlit.round.canaries import Canaries, WithoutThoseOut
from fedlit.round.plan import SAMPLINGS, Schedule

Trains = Callable[[int], frozenset[str]]


def _nothing(_round_idx: int) -> frozenset[str]:
    return frozenset()


def make_schedule(plan: Plan, trains: Trains = _nothing, work: Work | None = None) -> Schedule:
    """Return the plans of all rounds; an audit's canaries stand after the clients.

    trains: what trains in a round (ModelHost.trains), for who asks for more than who takes part. work: what clients
    have to do, for who asks for rounds that a simulated clock decides on.

    Raises:
        UserError: parts of the plan that do not fit the clients or the method.
    """
    config, canaries = plan.inputs.config, make_canaries(plan)
    cohort = config.cohort
    sampling = _cohort_part("sampling", SAMPLINGS, cohort.sampling, cohort.options)
    availability = _cohort_part("availability", AVAILABILITIES, cohort.availability, cohort.options)
    _require_fits(config, plan, availability)
    return Schedule(
        seed=config.seed,
        num_examples=(*(len(shard.train) for shard in plan.clients), *(0 for _ in canaries.clients if canaries.num)),
        cohort_size=plan.cohort_size,
        weigh=plan.method.weights,
        trains=trains,
        sampling=WithoutThoseOut(inner=sampling, canaries=canaries) if canaries.num else sampling,
        availability=availability,
        fixes_number=config.privacy.unit == "client",
        over_selection=cohort.over_selection,
        work=work,
    )


def _require_fits(config: RunConfig, plan: Plan, availability: Availability) -> None:
    """Refuse late results where a sum of changes is not what the rule makes its server of.

    Raises:
        UserError: says which part does not fit.
    """
    name, method = config.cohort.availability, plan.method
    told = f"cohort.availability={name}"
    if method.pooled and name != "always":
        raise UserError(f"{told} is for clients, and method={method.name} has none; give cohort.availability=always")
    if not availability.keeps_late:
        return
    late = f"{told} uses results that come in a later round" + (" (late=use)" if name == "deadline" else "")
    drop = "give cohort.options={late: drop}" if name == "deadline" else "give another availability"
    if not method.rule.averages:
        raise UserError(
            f"{late}, as changes that are summed; method={method.name} makes its server of single results or refactors "
            f"the mean; choose a method that averages, such as fedit, ffa_lora or fed_sb, or {drop}"
        )
    if method.groups:
        raise UserError(
            f"{late}, and {' and '.join(method.groups)} that travels beside the model belongs to one round; leave "
            f"it out, or {drop}"
        )
    if config.privacy.secure_aggregation:
        raise UserError(
            f"{late}, and the masks of privacy.secure_aggregation=true belong to one round; {drop}, or leave masks out"
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
