"""What a run claims of its privacy: the mechanism of its rounds, its noise, and what that has cost so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from fedlit.config.schema import RunConfig
from fedlit.errors import UserError
from fedlit.privacy.accounting import Mechanism, Spent, calibrated, largest_rounds, spent, spent_by_clients


@dataclass(frozen=True, kw_only=True)
class Claim:
    """(epsilon, delta) of one unit, a client or an example of one.

    noise_multiplier: of a round, or of a local step. limit: the most that may be spent. num_rounds: of the run at most.
    mechanism: of a round, for unit=client. For unit=example, rows: of every client; batch_rows: that a step expects;
    most_steps: of every client in all rounds, if nobody is lost.
    """

    unit: str
    noise_multiplier: float
    delta: float
    accountant: str
    limit: float | None = None
    mechanism: Mechanism | None = None
    rows: tuple[int, ...] = ()
    batch_rows: int = 0
    most_steps: tuple[int, ...] = ()
    num_rounds: int = 0

    def spent(self, releases: int, steps: Sequence[int]) -> Spent:
        """Return what so many rounds, or so many local steps of every client, have cost: of the worst client."""
        if self.mechanism is not None:
            return spent(self.mechanism, releases, self.delta, self.accountant)
        noise, worst = self.noise_multiplier, self.worst(steps)
        one = step_mechanism(self.rows[worst], self.batch_rows, noise)
        return spent(one, steps[worst], self.delta, self.accountant)

    def worst(self, steps: Sequence[int]) -> int:
        """Return the client whose examples have cost most, of unit=example."""
        noise, delta = self.noise_multiplier, self.delta
        return _worst(self.rows, self.batch_rows, tuple(steps), noise, delta, self.accountant)

    def allows(self, releases: int, steps: Sequence[int]) -> bool:
        """Tell whether so much may be spent."""
        if self.limit is None:
            return True
        if self.mechanism is not None:
            return releases <= self.most_releases
        return self.spent(releases, steps).epsilon <= self.limit

    @cached_property
    def most_releases(self) -> int:
        """How many rounds fit: looked for once, since every epsilon of a round costs tenths of a second."""
        assert self.mechanism is not None and self.limit is not None
        return largest_rounds(self.mechanism, self.limit, self.delta, self.accountant, at_most=self.num_rounds)

    @property
    def mechanism_in_words(self) -> str:
        """What is let out again and again, in the terms of the accountant."""
        one = self.mechanism
        if one is None:
            return (
                f"local steps of about {self.batch_rows:,} rows, each by itself; of the client with the largest epsilon"
            )
        if one.kind == "all":
            return f"all {one.population:,} clients in every round"
        how = "each by itself" if one.kind == "poisson" else "without replacement"
        return f"{one.cohort_size:,} of {one.population:,} clients a round, {how}"


@lru_cache(maxsize=4)
def _worst(
    rows: tuple[int, ...], batch_rows: int, steps: tuple[int, ...], noise: float, delta: float, accountant: str
) -> int:
    """Return the client whose examples have cost most: asked for several times a round, and a second of work for
    hundreds of different clients.
    """
    return spent_by_clients(rows, batch_rows, steps, noise, delta, accountant)[1]


def make_claim(config: RunConfig, rows: Sequence[int], most_steps: Sequence[int]) -> Claim | None:
    """Return the claim of a run, None where it makes none.

    Args:
        config: of the run.
        rows: training rows of every client.
        most_steps: local steps of every client in all rounds, if nobody is lost.

    Raises:
        UserError: no noise keeps within the epsilon that is asked for.
    """
    privacy = config.privacy
    if privacy.unit == "none":
        return None
    batch_rows = config.local.batch_size * config.local.accumulate
    noise, limit, delta, accountant = privacy.noise_multiplier, privacy.epsilon, privacy.delta, privacy.accountant
    of_examples = privacy.unit == "example"
    if noise is not None and limit is not None and not of_examples:
        _require_one_round(client_mechanism(config, noise), limit, delta, accountant)
    if noise is None:
        assert limit is not None, "checked before"
        if of_examples:
            noise = _noise_of_the_worst(rows, batch_rows, most_steps, limit, delta, accountant)
        else:
            noise = calibrated(client_mechanism(config, 1.0), config.num_rounds, limit, delta, accountant)
    return Claim(
        unit=privacy.unit,
        noise_multiplier=noise,
        delta=delta,
        accountant=accountant,
        limit=limit,
        mechanism=None if of_examples else client_mechanism(config, noise),
        num_rounds=config.num_rounds,
        rows=tuple(rows) if of_examples else (),
        batch_rows=batch_rows if of_examples else 0,
        most_steps=tuple(most_steps) if of_examples else (),
    )


def _require_one_round(mechanism: Mechanism, limit: float, delta: float, accountant: str) -> None:
    """Raise a UserError where not even one round may be run."""
    one = spent(mechanism, 1, delta, accountant).epsilon
    if one > limit:
        raise UserError(
            f"privacy.epsilon={limit:g} is less than one round spends, {one:.4g} with privacy.noise_multiplier="
            f"{mechanism.noise_multiplier:g}; give more noise, or leave privacy.noise_multiplier out"
        )


def _noise_of_the_worst(
    rows: Sequence[int], batch_rows: int, steps: Sequence[int], epsilon: float, delta: float, accountant: str
) -> float:
    """Return the noise multiplier that keeps every client within epsilon: that of the one whose epsilon is largest,
    which may be another one with more noise.
    """

    def pace(client: int) -> float:
        """Return about how fast a client spends."""
        return steps[client] * min(1.0, batch_rows / rows[client]) ** 2

    noise, worst = 0.0, max(range(len(rows)), key=pace)
    for _ in rows:
        found = calibrated(step_mechanism(rows[worst], batch_rows, 1.0), steps[worst], epsilon, delta, accountant)
        noise = max(noise, found)
        spent_most, worst = spent_by_clients(rows, batch_rows, steps, noise, delta, accountant)
        if spent_most <= epsilon:
            break
    return noise


def step_mechanism(num_rows: int, batch_rows: int, noise_multiplier: float) -> Mechanism:
    """Return what a local step of unit=example is for the accountant."""
    return Mechanism(sampling="poisson", cohort_size=batch_rows, population=num_rows, noise_multiplier=noise_multiplier)


def client_mechanism(config: RunConfig, noise_multiplier: float) -> Mechanism:
    """Return what a round of unit=client is for the accountant: of the deployment that is simulated."""
    privacy, num_clients = config.privacy, config.num_clients + config.privacy.canaries
    return Mechanism(
        sampling="poisson" if config.cohort.sampling == "poisson" else "fixed",
        cohort_size=privacy.noise_cohort_size or config.cohort_size or num_clients,
        population=privacy.population or num_clients,
        noise_multiplier=noise_multiplier,
    )
