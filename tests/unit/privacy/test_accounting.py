"""Epsilon against closed forms and against dp-accounting; monotone; noise and rounds that fit."""

import math
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from scipy.optimize import brentq
from scipy.stats import norm

from fedlit.errors import UserError
from fedlit.privacy import accountants
from fedlit.privacy.accounting import Mechanism, calibrated, largest_rounds, noise_of_the_change, spent

DELTA = 1e-5
Sampling = Literal["poisson", "fixed", "all"]


def mechanism(sampling: Sampling, population: int, cohort: int, noise: float = 0.0) -> Mechanism:
    return Mechanism(sampling=sampling, cohort_size=cohort, population=population, noise_multiplier=noise)


def epsilon(sampling: Sampling, population: int, cohort: int, rounds: int, noise: float, name: str = "auto") -> float:
    return spent(mechanism(sampling, population, cohort, noise), rounds, DELTA, name).epsilon


def exact_delta(epsilon: float, noise: float) -> float:
    """Return delta of one Gaussian release by its definition: P(loss > epsilon) - e^epsilon Q(loss > epsilon), where
    the loss of x is (x - 1/2) / noise^2 and x is drawn around 1 under P and around 0 under Q."""
    least = epsilon * noise**2 + 0.5
    one, other = norm.logsf(least, loc=1, scale=noise), epsilon + norm.logsf(least, loc=0, scale=noise)
    return float(-math.exp(one) * math.expm1(other - one))


def exact_epsilon(noise: float, rate: float = 1.0) -> float:
    """Return epsilon of one release of which a unit is a part with probability `rate`: the loss of such a mixture,
    log(1 - rate + rate e^loss), is above epsilon where the loss is above log(1 + (e^epsilon - 1) / rate)."""

    def delta(value: float) -> float:
        return rate * exact_delta(math.log1p(math.expm1(value) / rate) if value < 600 else value, noise)

    return float(brentq(lambda value: delta(value) - DELTA, 1e-9, 2e3, xtol=1e-13))


@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("rounds", [1, 7, 100])
def test_everybody_every_round_is_one_gaussian_of_less_noise(noise: float, rounds: int) -> None:
    found = epsilon("all", 9, 9, rounds, noise)
    assert found == pytest.approx(exact_epsilon(noise / math.sqrt(rounds)), rel=1e-6)
    assert epsilon("poisson", 9, 9, rounds, noise) == found
    assert epsilon("fixed", 9, 9, rounds, noise) == found
    assert spent(mechanism("fixed", 9, 9, noise), rounds, DELTA).adjacency == "add-or-remove"


@pytest.mark.parametrize("noise", [0.7, 3.0])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_one_poisson_release_is_its_closed_form(noise: float, rate: float) -> None:
    expected = exact_epsilon(noise, rate)
    found = epsilon("poisson", 1000, round(1000 * rate), 1, noise)
    assert expected <= found + 1e-9
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_one_gaussian_by_hand() -> None:
    # Phi(1/2 - e) - exp(e) Phi(-1/2 - e) is 1e-5 at e = 4.377178: Phi(-3.877178) - 79.61 * Phi(-4.877178).
    assert norm.cdf(0.5 - 4.377178) - math.exp(4.377178) * norm.cdf(-0.5 - 4.377178) == pytest.approx(1e-5, rel=1e-6)
    assert epsilon("all", 1, 1, 1, 1.0) == pytest.approx(4.377178, rel=1e-6)


def test_a_fixed_size_changes_the_sum_twice_as_much() -> None:
    """By Renyi divergences: never below the exact epsilon of half of the noise, and near it without amplification."""
    exact = exact_epsilon(0.5)
    almost_all = epsilon("fixed", 10**6, 10**6 - 1, 1, 1.0)
    assert exact <= almost_all <= 1.1 * exact
    found = spent(mechanism("fixed", 100, 10, 1.0), 100, DELTA)
    assert (round(found.epsilon, 1), found.accountant, found.adjacency) == (83.9, "rdp", "replace-one")


def test_what_dp_accounting_means_by_replace_one() -> None:
    """Its PLD accountant doubles the sensitivity, its RDP accountant does not: `fixed_rdp` halves the noise."""
    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    event = dp_accounting.GaussianDpEvent(1.0)
    by_pld = pld.PLDAccountant(relation).compose(event).get_epsilon(DELTA)
    by_rdp = dp_accounting.rdp.RdpAccountant(neighboring_relation=relation).compose(event).get_epsilon(DELTA)
    assert by_pld == pytest.approx(exact_epsilon(0.5), rel=1e-4)
    assert by_pld == pytest.approx(9.997, abs=1e-3)
    assert by_rdp == pytest.approx(4.729, abs=1e-3)


@pytest.mark.parametrize("sampling", ["poisson", "fixed", "all"])
def test_epsilon_rises_with_rounds_and_falls_with_noise(sampling: Sampling) -> None:
    cohort = 50 if sampling == "all" else 5
    by_rounds = [epsilon(sampling, 50, cohort, rounds, 1.2) for rounds in (0, 1, 2, 50, 51)]
    by_noise = [epsilon(sampling, 50, cohort, 20, noise) for noise in (0, 0.05, 0.5, 1, 1.01, 30, 500, 1e7)]
    assert by_rounds[0] == 0
    assert by_noise[0] == math.inf
    assert all(one < other for one, other in pairwise(by_rounds))
    assert all(one > other for one, other in pairwise(by_noise))


@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
@pytest.mark.parametrize("noise", [0.8, 3.0])
def test_epsilon_rises_with_the_rate(sampling: Sampling, noise: float) -> None:
    found = [epsilon(sampling, 100, cohort, 30, noise) for cohort in (1, 20, 60, 99)]
    assert all(one <= other for one, other in pairwise(found))
    assert found[0] < found[2]


@pytest.mark.parametrize(
    ("rate", "noise", "rounds"), [(0.05, 30.0, 5), (0.02, 4.0, 50), (0.1, 1.0, 100), (0.01, 0.7, 500)]
)
def test_renyi_orders_are_wide_enough(rate: float, noise: float, rounds: int) -> None:
    """dp-accounting's own orders say .103 for the first, ten times too much."""
    by_pld, by_rdp = (epsilon("poisson", 1000, round(1000 * rate), rounds, noise, name) for name in ("pld", "rdp"))
    assert by_pld < by_rdp < 1.25 * by_pld


def test_more_orders_give_no_better_epsilon() -> None:
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    for noise, rounds in ((1.0, 100), (8.0, 10)):
        event = dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(noise))
        dense = dp_accounting.rdp.RdpAccountant(list(range(2, 300)), relation).compose(event, rounds)
        assert epsilon("poisson", 100, 5, rounds, noise, "rdp") < 1.01 * dense.get_epsilon(DELTA)


@pytest.mark.parametrize("noise", [200.0, 5000.0])
def test_much_noise_is_not_lost_in_the_grid(noise: float) -> None:
    """At such noise a release loses less than a step of dp-accounting's own grid. A Poisson release is close to a
    Gaussian of noise / rate, from below."""
    found = epsilon("poisson", 100, 10, 400, noise)
    gaussian = spent(mechanism("all", 1, 1, noise / 0.1), 400, DELTA).epsilon
    assert gaussian == pytest.approx(found, rel=0.02, abs=1e-6)


def test_little_noise_is_infinity_or_a_large_number_and_quick() -> None:
    for sampling in ("poisson", "fixed", "all"):
        assert 1e5 < epsilon(sampling, 100, 100 if sampling == "all" else 10, 100, 1e-3) < math.inf  # type: ignore[arg-type]
        assert epsilon(sampling, 100, 10, 1, 1e-200) == epsilon(sampling, 100, 10, 1, 0.0) == math.inf  # type: ignore[arg-type]
        assert spent(mechanism(sampling, 100, 10, 1.0), 1, 0.0).epsilon == math.inf  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sampling", "target", "rounds"),
    [
        *(("poisson", 0.05, 20), ("poisson", 1.0, 10)),
        *(("fixed", 20.0, 10), ("all", 0.01, 3), ("all", 8.0, 50), ("all", 500.0, 50)),
    ],
)
def test_calibrated_noise_spends_epsilon_and_no_more(sampling: Sampling, target: float, rounds: int) -> None:
    asked = mechanism(sampling, 60, 60 if sampling == "all" else 6)
    noise = calibrated(asked, rounds, target, DELTA)
    assert 0.999 * target <= epsilon(sampling, 60, asked.cohort_size, rounds, noise) <= target
    assert epsilon(sampling, 60, asked.cohort_size, rounds, noise * (1 - 1.01e-4)) > target
    fits = mechanism(sampling, 60, asked.cohort_size, noise)
    assert largest_rounds(fits, target, DELTA, at_most=1000) == rounds
    assert largest_rounds(fits, target, DELTA, at_most=rounds - 1) == rounds - 1


def test_calibrated_noise_of_one_gaussian_is_the_closed_form() -> None:
    noise = calibrated(mechanism("all", 5, 5), 1, exact_epsilon(1.7), DELTA)
    assert 1.7 * (1 - 1e-9) <= noise <= 1.7 * (1 + 1.01e-4)


def test_what_no_noise_reaches_is_told() -> None:
    with pytest.raises(UserError, match=r"no noise reaches privacy.epsilon=1 at privacy.delta=0 in 5 releases"):
        calibrated(mechanism("poisson", 50, 5), 5, 1.0, 0.0)
    with pytest.raises(UserError, match=r"no noise reaches privacy.epsilon=1e-12 .* spends \d"):
        calibrated(mechanism("all", 5, 5), 10**9, 1e-12, 1e-9)


def test_rounds_that_fit() -> None:
    assert largest_rounds(mechanism("poisson", 50, 5, 1.0), 1e-3, DELTA, at_most=100) == 0
    assert largest_rounds(mechanism("poisson", 50, 5, 0.0), 8.0, DELTA, at_most=100) == 0
    assert largest_rounds(mechanism("all", 5, 5, 1.0), 1e9, DELTA, at_most=100) == 100
    found = largest_rounds(mechanism("poisson", 50, 5, 1.0), 3.0, DELTA, at_most=5000)
    assert epsilon("poisson", 50, 5, found, 1.0) <= 3.0 < epsilon("poisson", 50, 5, found + 1, 1.0)


def test_a_fixed_size_by_pld_is_refused() -> None:
    with pytest.raises(UserError, match=r"privacy.accountant=pld cannot count .*\(5 of 50 without replacement\)"):
        spent(mechanism("fixed", 50, 5, 1.0), 1, DELTA, "pld")
    assert spent(mechanism("fixed", 50, 50, 1.0), 1, DELTA, "pld").accountant == "pld"


@pytest.mark.parametrize(
    "words", [{"population": 0}, {"cohort_size": 0}, {"noise_multiplier": -1.0}, {"noise_multiplier": math.nan}]
)
def test_no_mechanism(words: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no mechanism"):
        Mechanism(**{"sampling": "poisson", "cohort_size": 1, "population": 2, "noise_multiplier": 1.0, **words})


def test_the_count_takes_its_share_of_the_noise() -> None:
    """Two Gaussian releases are one whose precision is their sum; each client adds 1/2 at most to the count."""
    z, count_noise = 1.3, 2.5
    found = noise_of_the_change(z, count_noise)
    assert found**-2 + (count_noise / 0.5) ** -2 == pytest.approx(z**-2, rel=1e-12)
    assert noise_of_the_change(0.0, 2.5) == 0.0
    with pytest.raises(UserError, match=r"privacy.clip_count_noise=0.65 leaves nothing .* set it above 0.65"):
        noise_of_the_change(1.3, 0.65)


class Changed:
    """dp-accounting with one thing that means something else."""

    def __init__(self, **changed: Any) -> None:
        self.__dict__.update(changed)

    def __getattr__(self, name: str) -> Any:
        return getattr(dp_accounting, name)


def without_replacement(noise: float) -> Any:
    """Return an event of dp-accounting's that has this noise instead of its own."""
    gaussian = dp_accounting.GaussianDpEvent(noise)
    return lambda population, size, _: dp_accounting.SampledWithoutReplacementDpEvent(population, size, gaussian)


def doubled_pld(noise: float, **words: Any) -> Any:
    return pld.privacy_loss_distribution.from_gaussian_mechanism(noise, sensitivity=2, **words)


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        # As if the noise were not halved, and as if the accountant doubled the sensitivity as well.
        ("without replacement, RDP", {"SampledWithoutReplacementDpEvent": without_replacement(1.0)}),
        ("without replacement, RDP", {"SampledWithoutReplacementDpEvent": without_replacement(0.25)}),
        ("Poisson, RDP", {"PoissonSampledDpEvent": lambda *_: dp_accounting.GaussianDpEvent(0.5)}),
        ("Poisson, RDP", {"PoissonSampledDpEvent": lambda *_: dp_accounting.GaussianDpEvent(2.0)}),
        (
            "Gaussian",
            {"get_epsilon_gaussian": lambda noise, delta: dp_accounting.get_epsilon_gaussian(2 * noise, delta)},
        ),
        (
            "Poisson, PLD",
            {"pld": SimpleNamespace(privacy_loss_distribution=SimpleNamespace(from_gaussian_mechanism=doubled_pld))},
        ),
    ],
)
def test_a_version_that_counts_in_another_way_is_refused(what: str, changed: dict[str, Any]) -> None:
    accountants.check(dp_accounting)
    with pytest.raises(UserError, match=rf"dp-accounting 0\.\d+\.\d+ says epsilon .* \({what}\)"):
        accountants.check(Changed(**changed))  # type: ignore[arg-type]


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    accountants.library.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    with pytest.raises(UserError, match=r"dp-accounting, which is not installed; pip install 'fedlit\[privacy\]'"):
        accountants.gaussian(1.0, 1, DELTA)


def test_the_module_is_light() -> None:
    heavy = ("torch", "numpy", "scipy", "dp_accounting")
    code = f"import sys, fedlit.privacy.accounting; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_divergence_of_drawing_without_replacement_is_its_published_bound() -> None:
    """Wang, Balle, Kasiviswanathan 2019 (arXiv 1808.00087), theorem 27, at order 2, where d is the divergence of the
    Gaussian: log(1 + q^2 min(4 (e^d - 1), 2 e^d))."""
    for rate, noise in ((0.1, 1.0), (0.3, 5.0), (0.02, 0.5)):
        d = 1 / noise**2
        expected = math.log1p(rate**2 * min(4 * math.expm1(d), 2 * math.exp(d)))
        event = dp_accounting.SampledWithoutReplacementDpEvent(
            1000, round(1000 * rate), dp_accounting.GaussianDpEvent(noise)
        )
        found = accountants._divergences(dp_accounting, event, dp_accounting.NeighboringRelation.REPLACE_ONE, (2,))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
