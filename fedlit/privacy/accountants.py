"""Epsilon of Gaussian releases by dp-accounting, which is imported on first use and checked once.

A release adds Gaussian noise of standard deviation `noise` to a sum that one unit changes by a norm of 1 at most. Every
number is an upper bound; none is below what the releases spend. `rough` asks for a bound that is a little higher and
many times cheaper.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from types import ModuleType
from typing import Any

from fedlit.errors import UserError

GRID = 1e-4
"""Distance of two losses in a privacy loss distribution: dp-accounting's own, and finer or coarser where epsilon is
very small or very large."""
FEWEST_POINTS, MOST_POINTS, ROUGH_POINTS = 1000, 100_000, 4000
NO_PROTECTION = 1e4
"""From this epsilon on sampling is not looked at: no number there says anything, and distributions overflow."""

_BELOW_2 = tuple(1 + 0.01 * 1.2**i for i in range(25))
ROUGH_ORDERS = (2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 48, 64)
ORDERS = (
    *range(2, 33),
    *(36, 41, 47, 54, 62, 75, 90, 110, 135, 165, 205, 256),
    *(360, 512, 720, 1024, 1440, 2048, 2880, 4096, 5760, 8192),
)
"""Whole numbers, 25% apart where they are dear, up to what an epsilon of 0.002 needs. At fractional orders
dp-accounting 0.6.0 drops the signs of the binomial coefficients under Poisson sampling: too large, or infinite."""


def gaussian(noise: float, releases: int, delta: float) -> float:
    """Return the exact epsilon where everybody takes part in every release (Balle & Wang 2018, arXiv 1805.06530)."""
    with _quiet():
        return float(library().get_epsilon_gaussian(noise / math.sqrt(releases), delta))


def poisson_pld(rate: float, noise: float, releases: int, delta: float, *, rough: bool = False) -> float:
    """Return epsilon where each unit takes part with probability `rate`, by privacy loss distributions: add or remove
    one unit. 0 < rate < 1.
    """
    bound = poisson_rdp(rate, noise, releases, delta, rough=True)
    if bound > NO_PROTECTION:
        return gaussian(noise, releases, delta)
    with _quiet():
        distribution = _one_release(rate, noise, _grid(rate, noise, bound, rough=rough))
        return float(distribution.self_compose(releases).get_epsilon_for_delta(delta))


def poisson_rdp(rate: float, noise: float, releases: int, delta: float, *, rough: bool = False) -> float:
    """Return epsilon as `poisson_pld`, by Renyi divergences; 0 < rate <= 1."""
    dp = library()
    event = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))
    return _from_rdp(event, dp.NeighboringRelation.ADD_OR_REMOVE_ONE, noise, releases, delta, rough=rough)


def fixed_rdp(size: int, population: int, noise: float, releases: int, delta: float, *, rough: bool = False) -> float:
    """Return epsilon where `size` units of the population are drawn without replacement, by Renyi divergences: one
    unit replaced by another. The sum then changes by 2, where one unit adds 1.

    dp-accounting 0.6.0 doubles the sensitivity under REPLACE_ONE in its PLD accountant and not in its RDP accountant,
    which counts the noise against the change itself (Wang, Balle, Kasiviswanathan 2019, arXiv 1808.00087): it is
    doubled here.
    """
    dp = library()
    event = dp.SampledWithoutReplacementDpEvent(population, size, dp.GaussianDpEvent(noise / 2))
    return _from_rdp(event, dp.NeighboringRelation.REPLACE_ONE, noise / 2, releases, delta, rough=rough)


def delta_of_gaussian(epsilon: float, noise: float) -> float:
    """Return the exact delta of one Gaussian release (Balle & Wang 2018, arXiv 1805.06530, theorem 8)."""
    below = math.erfc((epsilon * noise - 0.5 / noise) / math.sqrt(2)) / 2
    return below - math.exp(epsilon) * math.erfc((epsilon * noise + 0.5 / noise) / math.sqrt(2)) / 2


@lru_cache(maxsize=1)
def library() -> ModuleType:
    """Return dp-accounting, whose numbers of one release agree with the closed form.

    Raises:
        UserError: it is not installed, or its version counts in another way.
    """
    try:
        import dp_accounting.pld  # noqa: PLC0415  an extra, and a second
        import dp_accounting.rdp  # noqa: PLC0415  as above
    except ImportError as error:
        raise UserError(
            "an epsilon needs the package dp-accounting, which is not installed; pip install 'fedlit[privacy]'"
        ) from error
    package: ModuleType = dp_accounting
    check(package)
    return package


def check(dp: ModuleType) -> None:
    """Compare one release of noise 1 with its closed form: the exact Gaussian, Poisson sampling by both accountants,
    and drawing without replacement, where the sum changes by 2.

    Raises:
        UserError: a number is another one, so that this version means something else by an event.
    """
    relations, delta, rate = dp.NeighboringRelation, 1e-5, 0.5
    with _quiet():
        exact = float(dp.get_epsilon_gaussian(1.0, delta))
        sampled = float(_new_pld(dp, rate, 1.0, 10 * GRID).get_epsilon_for_delta(delta))
        everyone = dp.PoissonSampledDpEvent(1.0, dp.GaussianDpEvent(1.0))
        replaced = dp.SampledWithoutReplacementDpEvent(2, 2, dp.GaussianDpEvent(0.5))
        renyi = _epsilon_of(dp, ORDERS, _divergences(dp, everyone, relations.ADD_OR_REMOVE_ONE, ORDERS), delta)
        doubled = _epsilon_of(dp, ORDERS, _divergences(dp, replaced, relations.REPLACE_ONE, ORDERS), delta)
    # Of a sampled Gaussian, for epsilon > 0: rate * delta of the Gaussian at log(1 + (e^epsilon - 1) / rate).
    behind = math.log1p(math.expm1(sampled) / rate)
    told = {
        "Gaussian": (exact, delta_of_gaussian(exact, 1.0), 1.0001),
        "Poisson, PLD": (sampled, rate * delta_of_gaussian(behind, 1.0), 1.01),
        "Poisson, RDP": (renyi, delta_of_gaussian(renyi, 1.0), 20.0),
        "without replacement, RDP": (doubled, delta_of_gaussian(doubled, 0.5), 20.0),
    }
    for what, (epsilon, exact_delta, slack) in told.items():
        if not delta / slack <= exact_delta <= delta * 1.0001:
            raise UserError(
                f"dp-accounting {version('dp-accounting')} says epsilon {epsilon:.4g} at delta {delta} for one release "
                f"with noise 1 ({what}), but the exact delta there is {exact_delta:.3g}; install dp-accounting 0.6.0"
            )


def _from_rdp(event: Any, relation: Any, noise: float, releases: int, delta: float, *, rough: bool) -> float:
    """noise: over the change of the sum. Sampling never spends more than taking part always, order by order; the bound
    of drawing without replacement is above it at high rates."""
    orders = ROUGH_ORDERS if rough else ORDERS
    sampled = _cached_divergences(event, relation, orders)
    every = (*_BELOW_2, *orders)
    always = [order / (2 * noise**2) for order in every]
    per_release = [*always[: len(_BELOW_2)], *map(min, always[len(_BELOW_2) :], sampled)]
    return _epsilon_of(library(), every, [releases * one for one in per_release], delta)


@lru_cache(maxsize=4096)
def _cached_divergences(event: Any, relation: Any, orders: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(_divergences(library(), event, relation, orders))


def _divergences(dp: ModuleType, event: Any, relation: Any, orders: tuple[int, ...]) -> list[float]:
    """Return the Renyi divergence of one release at each order."""
    with _quiet():
        found = dp.rdp.RdpAccountant(list(orders), relation).compose(event).rdp
    # The logarithms of binomial coefficients are rounded at their own size, far above a divergence under much noise.
    rounding = [1e-14 * math.log(order + 1) for order in orders]
    return [max(float(one), 0.0) + most for one, most in zip(found, rounding, strict=True)]


def _epsilon_of(dp: ModuleType, orders: tuple[float, ...], divergences: list[float], delta: float) -> float:
    with _quiet():
        return float(dp.rdp.compute_epsilon(orders, divergences, delta)[0])


def _grid(rate: float, noise: float, bound: float, *, rough: bool) -> float:
    """Return the distance of losses: dp-accounting's own, times a power of 2 where a release or epsilon (`bound`)
    spans so few points that rounding would count, or so many that memory would.
    """
    exponent = 0.5 / noise**2 + 10 / noise
    span = math.log1p(rate * math.expm1(exponent)) if exponent < 100 else exponent + math.log(rate)
    if rough:
        return max(span / FEWEST_POINTS, bound / ROUGH_POINTS)
    if span < FEWEST_POINTS * GRID:
        return GRID * 2.0 ** math.floor(math.log2(span / (FEWEST_POINTS * GRID)))
    return GRID * 2.0 ** math.ceil(math.log2(max(1.0, span / (MOST_POINTS * GRID), bound / (MOST_POINTS * GRID))))


@lru_cache(maxsize=8)
def _one_release(rate: float, noise: float, grid: float) -> Any:
    return _new_pld(library(), rate, noise, grid)


def _new_pld(dp: ModuleType, rate: float, noise: float, grid: float) -> Any:
    return dp.pld.privacy_loss_distribution.from_gaussian_mechanism(
        noise,
        sampling_prob=rate,
        value_discretization_interval=grid,
        neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the library says of orders that it leaves out, and numpy of the logarithm of 0."""
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        logger.disabled = before
