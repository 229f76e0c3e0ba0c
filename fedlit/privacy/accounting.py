"""What a run spends: epsilon of its releases, the noise that keeps within an epsilon, and how many releases fit.

A release is a noisy sum that is shown: a round under `privacy.unit=client`, a local step under `privacy.unit=example`.
Neither torch nor dp-accounting is imported with this module.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from heapq import heapify, heappop, heappush
from typing import Literal

from fedlit.errors import UserError
from fedlit.privacy import accountants

Sampling = Literal["poisson", "fixed", "all"]
AccountantName = Literal["pld", "rdp"]
Adjacency = Literal["add-or-remove", "replace-one"]

LEAST_NOISE, MOST_NOISE = 1e-4, 1e6
"""Noise multipliers that are tried. More noise than the most counts as the most, less than the least as none."""
PRECISION = 1e-4
"""Relative precision of a calibrated noise multiplier."""
LEAST_SPENT = 0.9995
"""Share of epsilon that a calibrated multiplier spends at least: near 0, epsilon changes faster than the noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """How a release is made.

    sampling: `poisson` (each unit by a coin of its own), `fixed` (cohort_size units without replacement), `all`.
    cohort_size, population: expected units of a release, and units altogether; for `privacy.unit=example` the expected
    batch size and the rows of a client. noise_multiplier: standard deviation of the noise over the norm that one unit
    can add to the sum; not looked at where the noise is asked for.

    Raises:
        ValueError: a size below 1, or a noise multiplier that is negative or no number.
    """

    sampling: Sampling
    cohort_size: int
    population: int
    noise_multiplier: float = 0.0

    def __post_init__(self) -> None:
        if self.cohort_size < 1 or self.population < 1 or not self.noise_multiplier >= 0:
            raise ValueError(f"no mechanism: {self}")

    @property
    def kind(self) -> Sampling:
        """The sampling that counts: whoever draws the whole population draws everybody."""
        return "all" if self.cohort_size >= self.population else self.sampling

    @property
    def adjacency(self) -> Adjacency:
        """What two neighbouring populations differ in: a unit more, or another one in the place of one."""
        return "replace-one" if self.kind == "fixed" else "add-or-remove"


@dataclass(frozen=True, slots=True)
class Spent:
    """Epsilon at a delta, by which accountant, and for which neighbours."""

    epsilon: float
    accountant: AccountantName
    adjacency: Adjacency


@lru_cache(maxsize=8192)
def spent(mechanism: Mechanism, num_releases: int, delta: float, accountant: str = "auto") -> Spent:
    """Return epsilon after some releases: an upper bound, tight to about 1e-3 with PLD.

    accountant: `pld`, `rdp`, or `auto`: PLD where it can, else RDP. 0 releases spend 0; without noise, or at a delta of
    0, the first one spends infinity. About 0.2 s for PLD under Poisson sampling, once for each argument.

    Raises:
        UserError: dp-accounting is missing or counts in another way; or `pld` of a cohort of fixed size.
    """
    name = _accountant_of(mechanism, accountant)
    return Spent(_epsilon(mechanism, num_releases, delta, name), name, mechanism.adjacency)


def calibrated(
    mechanism: Mechanism, num_releases: int, epsilon: float, delta: float, accountant: str = "auto"
) -> float:
    """Return the smallest noise multiplier that keeps the releases within epsilon, rounded up to a relative 1e-4.

    Some seconds. Never below 1e-4.

    Raises:
        UserError: no noise multiplier up to a million is enough; or as `spent`.
    """
    name = _accountant_of(mechanism, accountant)
    if num_releases < 1 or epsilon == math.inf:
        return 0.0

    @cache
    def at(noise: float, *, rough: bool = False) -> float:
        return _epsilon(replace(mechanism, noise_multiplier=noise), num_releases, delta, name, rough=rough)

    if at(MOST_NOISE) > epsilon:
        raise UserError(
            f"no noise reaches privacy.epsilon={epsilon:g} at privacy.delta={delta:g} in {num_releases} releases: a "
            f"multiplier of {MOST_NOISE:.0e} spends {at(MOST_NOISE):.3g}; set a larger privacy.epsilon or privacy.delta"
        )
    low, high = LEAST_NOISE, MOST_NOISE
    while high / low > 1 + 1e-3:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if at(middle, rough=True) <= epsilon else (middle, high)
    # The rough numbers are above the exact ones: what they let pass is within, and the noise sought lies below.
    step = 2e-3
    while (low := max(high / (1 + step), LEAST_NOISE)) > LEAST_NOISE and at(low) <= epsilon:
        high, step = low, 4 * step
    if low == LEAST_NOISE and at(low) <= epsilon:
        return LEAST_NOISE
    while high / low > 1 + PRECISION or (at(high) < LEAST_SPENT * epsilon and high / low > 1 + 1e-9):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if at(middle) <= epsilon else (middle, high)
    return high


def largest_rounds(
    mechanism: Mechanism, epsilon: float, delta: float, accountant: str = "auto", *, at_most: int
) -> int:
    """Return how many releases keep within epsilon, `at_most` if that many do. Some seconds.

    Raises:
        UserError: as `spent`.
    """
    name = _accountant_of(mechanism, accountant)

    def fit(releases: int) -> bool:
        return _epsilon(mechanism, releases, delta, name) <= epsilon

    def fit_roughly(releases: int) -> bool:
        return _epsilon(mechanism, releases, delta, name, rough=True) <= epsilon

    if at_most < 1 or fit(at_most):
        return max(at_most, 0)
    least = _last(fit_roughly, 0, at_most)
    step, most = 1, at_most
    while least + step < most:
        if not fit(least + step):
            most = least + step
        else:
            least, step = least + step, 4 * step
    return _last(fit, least, most)


def spent_by_clients(
    rows: Sequence[int],
    batch_size: int,
    steps: Sequence[int],
    noise_multiplier: float,
    delta: float,
    accountant: str = "auto",
) -> tuple[float, int]:
    """Return the largest epsilon of the clients' own examples, and the client whose it is; (0, 0) before any step.

    rows: of each client. batch_size: expected rows of a step, `local.batch_size * local.accumulate`; a client draws
    each row with probability min(1, batch_size / rows). steps: that each client really took.

    A client with no fewer rows and no more steps than another spends no more: few are looked at, and of them a rough
    bound passes over those that cannot be the largest.

    Raises:
        UserError: as `spent`.
    """
    first: dict[tuple[int, int], int] = {}
    for client, (num_rows, taken) in enumerate(zip(rows, steps, strict=True)):
        if num_rows > 0 and taken > 0:
            first.setdefault((max(num_rows, batch_size), taken), client)
    candidates, most_steps = [], 0
    for num_rows, taken in sorted(first, key=lambda pair: (pair[0], -pair[1])):
        if taken > most_steps:
            candidates.append((num_rows, taken))
            most_steps = taken
    return _largest(candidates, first, batch_size, noise_multiplier, delta, accountant)


def noise_of_the_change(noise_multiplier: float, count_noise: float) -> float:
    """Return the noise multiplier of the clients' changes where the number of clients below an adaptive clip norm is
    released too, so that both together are one release of `noise_multiplier` (Andrew et al. 2021, arXiv 1905.03871,
    theorem 1: z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2)).

    count_noise: standard deviation of the noise on the number, to which each client adds -1/2 or 1/2.

    Raises:
        UserError: the number alone spends as much as both may.
    """
    if noise_multiplier == 0:
        return 0.0
    share = noise_multiplier / (2 * count_noise)
    if share >= 1:
        raise UserError(
            f"privacy.clip_count_noise={count_noise:g} leaves nothing of a noise multiplier of {noise_multiplier:g} "
            f"for the clients' changes; set it above {noise_multiplier / 2:g}"
        )
    return noise_multiplier / math.sqrt(1 - share**2)


def _largest(
    candidates: Sequence[tuple[int, int]],
    clients: Mapping[tuple[int, int], int],
    batch_size: int,
    noise_multiplier: float,
    delta: float,
    accountant: str,
) -> tuple[float, int]:
    """Return the largest epsilon of pairs (rows, steps), and the client of that pair.

    Three numbers of falling size and rising cost: a few Renyi divergences, the rough and the exact epsilon. The largest
    one known is replaced by its next, until it is an exact one.
    """
    heap = []
    for num_rows, taken in candidates:
        mechanism = Mechanism(
            sampling="poisson", cohort_size=batch_size, population=num_rows, noise_multiplier=noise_multiplier
        )
        bound = _epsilon(mechanism, taken, delta, "rdp", rough=True)
        heap.append((-bound, 0, clients[num_rows, taken], mechanism, taken))
    heapify(heap)
    while heap:
        bound, stage, client, mechanism, taken = heappop(heap)
        if stage == 2:
            return -bound, client
        name = _accountant_of(mechanism, accountant)
        found = _epsilon(mechanism, taken, delta, name, rough=True) if stage == 0 else 0.0
        if stage == 1:
            found = spent(mechanism, taken, delta, accountant).epsilon
        heappush(heap, (-found, stage + 1, client, mechanism, taken))
    return 0.0, 0


def _accountant_of(mechanism: Mechanism, accountant: str) -> AccountantName:
    if accountant == "rdp":
        return "rdp"
    if mechanism.kind != "fixed":
        return "pld"
    if accountant == "pld":
        raise UserError(
            f"privacy.accountant=pld cannot count cohorts of a fixed size ({mechanism.cohort_size} of "
            f"{mechanism.population} without replacement): their privacy loss distribution is not known to "
            "dp-accounting; set cohort.sampling=poisson, or privacy.accountant=rdp"
        )
    return "rdp"


def _epsilon(mechanism: Mechanism, releases: int, delta: float, name: str, *, rough: bool = False) -> float:
    """name: the accountant. rough: a little more than epsilon, for a fraction of the time."""
    noise = min(mechanism.noise_multiplier, MOST_NOISE)
    if releases <= 0 or delta >= 1:
        return 0.0
    if noise < LEAST_NOISE or delta <= 0:
        return math.inf
    size, population, kind = mechanism.cohort_size, mechanism.population, mechanism.kind
    if kind == "fixed":
        return accountants.fixed_rdp(size, population, noise, releases, delta, rough=rough)
    if name == "rdp":
        return accountants.poisson_rdp(min(1.0, size / population), noise, releases, delta, rough=rough)
    if kind == "all":
        return accountants.gaussian(noise, releases, delta)
    return accountants.poisson_pld(size / population, noise, releases, delta, rough=rough)


def _last(fits: Callable[[int], bool], low: int, high: int) -> int:
    """Return the last number from `low` on, which fits, and before `high`, which does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
