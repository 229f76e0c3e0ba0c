"""The privacy of a run: its claim before the first round, what watches it, and an audit's canaries."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedlit.client.row_order import steps_of_epochs
from fedlit.client.trainers.canaries import WithCanaries
from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.planning import Plan
from fedlit.privacy.claim import Claim, make_claim
from fedlit.round.jobs import Trainer
from fedlit.round.observers import Observer
from fedlit.round.observers.audit import AuditObserver
from fedlit.round.observers.privacy import NOT_COVERED, MaskObserver, PrivacyObserver, claim_facts
from fedlit.round.observers.traffic import TrafficObserver
from fedlit.round.plan import Schedule
from fedlit.round.private_rounds import PrivateRounds
from fedlit.scheduling import make_canaries, make_schedule
from fedlit.secure import FEWEST, SecureAggregation
from fedlit.units import readable_bytes

if TYPE_CHECKING:
    from fedlit.client.trainers.base import LocalTrainer  # lightning: a dry run does without


def make_privacy(plan: Plan) -> PrivateRounds:
    """Return the privacy of a run's rounds, its noise made to fit.

    Raises:
        UserError: no noise keeps within the epsilon that is asked for, an adaptive norm leaves none to the changes, or
            rounds are too small to be masked.
    """
    config, schedule = plan.inputs.config, make_schedule(plan)
    private = PrivateRounds(
        config=config,
        masks=_masks(config, plan.cohort_size),
        rule=plan.method.rule,
        canaries=make_canaries(plan) if config.privacy.canaries else None,
        claim=make_claim(config, schedule.num_examples, most_steps(plan, schedule)),
        num_steps=lambda client_id: steps_of(config, schedule.num_examples[client_id], plan.num_step_multiples),
    )
    private.require_noise()
    return private


def _masks(config: RunConfig, cohort_size: int) -> SecureAggregation | None:
    """Return what masks the sums of a run, None where nothing does."""
    privacy = config.privacy
    if not privacy.secure_aggregation:
        return None
    if config.cohort.sampling == "fixed":
        SecureAggregation.require_cohort(cohort_size)
    elif privacy.unit == "client":
        _require_full_rounds(config, cohort_size)
    return SecureAggregation(
        seed=config.seed,
        threshold=privacy.threshold,
        neighbours=privacy.neighbours,
        unmask_dropout=privacy.unmask_dropout,
    )


def _require_full_rounds(config: RunConfig, cohort_size: int) -> None:
    """Refuse cohorts that may come out so small that they cannot be masked: such a round stands still, which tells how
    many came, and no epsilon is of that. Where it is a hundred times less likely than delta it does not matter.
    """
    if config.privacy.unmask_dropout:
        raise UserError(
            f"privacy.unmask_dropout={config.privacy.unmask_dropout:g} leaves rounds void by how many "
            "come, which cohort.sampling=poisson hides and no epsilon is of; give privacy.unmask_dropout=0, or "
            "cohort.sampling=fixed"
        )
    num_clients = config.num_clients + config.privacy.canaries
    chance = config.num_rounds * fewer_than(FEWEST, num_clients, cohort_size / num_clients)
    if chance > config.privacy.delta / 100:
        raise UserError(
            f"privacy.secure_aggregation=true leaves rounds of fewer than {FEWEST} clients void, which tells how many "
            f"came, and with cohort_size={cohort_size} that happens with probability {chance:.1g}, more than a "
            f"hundredth of privacy.delta={config.privacy.delta:g}; give a larger cohort_size, or cohort.sampling=fixed"
        )


def fewer_than(num: int, num_clients: int, rate: float) -> float:
    """Return the probability that fewer clients come, each by itself with this probability."""
    return sum(math.comb(num_clients, k) * rate**k * (1 - rate) ** (num_clients - k) for k in range(num))


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


def _mask_line(privacy: PrivateRounds, cohort_size: int) -> str:
    """Return what masks add to the bytes of a client, and what they are not."""
    assert privacy.masks is not None
    beside = privacy.masks.expected_traffic(cohort_size, 0).uplink.total / cohort_size
    return (
        f"masked sums: a client sends 8 bytes a number, and {readable_bytes(beside)} of keys and shares; "
        "a simulation in one trust domain"
    )


def claim_lines(privacy: PrivateRounds, cohort_size: int) -> tuple[str, ...]:
    """Return what a run will claim, by which mechanism, and how its sums are hidden: for a person."""
    config, claim, lines = privacy.config, privacy.claim, list[str]()
    if claim is not None:
        num_rounds, limit = config.num_rounds, "" if claim.limit is None else f"; at most {claim.limit:g} may be spent"
        if claim.limit is not None and claim.mechanism is not None and claim.most_releases < num_rounds:
            num_rounds, limit = claim.most_releases, f" of {num_rounds}; no more than {claim.limit:g} may be spent"
        spent = claim.spent(num_rounds, claim.most_steps)
        lines = [
            f"epsilon {spent.epsilon:.4g} at delta {claim.delta:g} for one {claim.unit} in {num_rounds} rounds{limit}",
            f"noise multiplier {claim.noise_multiplier:.5g}, clip norm {config.privacy.clip_norm:g}; "
            f"{_mechanism(claim, config)} ({spent.adjacency}, {spent.accountant.upper()})",
        ]
    if config.privacy.secure_aggregation:
        lines.append(_mask_line(privacy, cohort_size))
    if privacy.canaries is not None:
        lines.append(f"{privacy.canaries.num} canaries of an audit among the clients, each in or out by a coin")
    return tuple(lines)


def privacy_observers(privacy: PrivateRounds, traffic: TrafficObserver, folder: Path) -> list[Observer]:
    """Return what tells of a run's claim, of its masks, and of an audit's canaries."""
    observers: list[Observer] = []
    if privacy.claim is not None:
        observers.append(PrivacyObserver(claim=privacy.claim))
        if privacy.canaries is not None:
            observers.append(AuditObserver(canaries=privacy.canaries, claim=privacy.claim, folder=folder))
    if privacy.config.privacy.secure_aggregation:
        observers.append(MaskObserver(plain=traffic))
    return observers


def with_canaries(trainer: "LocalTrainer", privacy: PrivateRounds) -> Trainer:
    """Return the trainer, with the canaries of an audit beside the clients that it trains.

    Raises:
        UserError: the clients keep something, which canaries have not.
    """
    if privacy.canaries is None:
        return trainer
    if trainer.parts or trainer.host.has_private or trainer.local.optimizer_state == "keep":
        raise UserError(
            f"privacy.canaries={privacy.canaries.num} needs clients that keep nothing between rounds; leave out what "
            "they keep (private tensors, local.optimizer_state=keep, local.scaffold), or the canaries"
        )
    if privacy.rule.asks_again:
        raise UserError(
            f"privacy.canaries={privacy.canaries.num} looks at the mean of each round, and this method's rule asks for "
            "other sums; choose a method that averages, such as method=fedit"
        )
    clip_norm = privacy.config.privacy.clip_norm
    assert clip_norm is not None, "checked before"
    return WithCanaries(inner=trainer, canaries=privacy.canaries, clip_norm=clip_norm)


def privacy_facts(privacy: PrivateRounds) -> dict[str, float | str]:
    """Return what the first record says of a claim, and of what it does not cover."""
    if privacy.claim is None:
        return {}
    return {
        **claim_facts(privacy.claim),
        "privacy/epsilon": 0.0,
        "privacy/mechanism": _mechanism(privacy.claim, privacy.config),
        "privacy/not_covered": NOT_COVERED,
    }


def _mechanism(claim: Claim, config: RunConfig) -> str:
    """Return what epsilon is of, and what simulates it where that is less."""
    told, privacy = claim.mechanism_in_words, config.privacy
    if claim.unit != "client" or (privacy.noise_cohort_size is None and privacy.population is None):
        return told
    num_clients = config.num_clients + privacy.canaries
    return f"{told}; a deployment that {config.cohort_size or num_clients:,} of {num_clients:,} clients simulate"
