"""The discrete Gaussian: its probabilities on small integers, its shape on large ones, the exact side of every
decision, and the same samples whatever a machine's exp says.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedlit.errors import UserError
from fedlit.privacy import discrete_gaussian
from fedlit.privacy.discrete_gaussian import sample

LEAST_P = 1e-4
"""Seeds are fixed: a p-value below it is a bias, not chance."""


@pytest.fixture(autouse=True)
def many_digits() -> Iterator[None]:
    with mpmath.workprec(600):
        yield


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def probabilities(sigma: int, most: int) -> NDArray[np.float64]:
    """Return those of -most to most; the sum runs over 40 sigma."""
    weights = np.exp(-0.5 * (np.arange(-40 * sigma, 40 * sigma + 1) / sigma) ** 2)
    middle = 40 * sigma
    return np.asarray(weights[middle - most : middle + most + 1] / weights.sum())


def fit(samples: NDArray[np.int64], sigma: int) -> float:
    """Return the p-value of a chi-square test of the samples, with everything beyond most in one class per side."""
    size = samples.size
    most = next(x for x in range(6 * sigma, 0, -1) if size * probabilities(sigma, x)[0] >= 10)
    expected = size * probabilities(sigma, most)
    beyond = (size - expected.sum()) / 2
    observed = np.bincount(np.clip(samples, -most - 1, most + 1) + most + 1, minlength=2 * most + 3)
    ends = np.array([beyond]) if beyond >= 1 else np.zeros(0)
    if not ends.size:
        observed = observed[1:-1]
    expected = np.concatenate([ends, expected, ends])
    return float(stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), expected.size - 1))


@pytest.mark.parametrize("sigma", [1, 2, 3, 10, 31, 32, 100, 257])
def test_small_integers_have_their_exact_probabilities(sigma: int) -> None:
    assert fit(sample(sigma, 1_000_000, generator(sigma)), sigma) > LEAST_P


def test_every_piece_of_a_long_draw_has_them() -> None:
    samples = sample(3, 64 * discrete_gaussian._PIECE, generator(7)).reshape(64, -1)
    p_values = [fit(piece, 3) for piece in samples]
    assert stats.kstest(p_values, "uniform").pvalue > LEAST_P


@pytest.mark.parametrize("sigma", [2**20, 3**20, 2**44, 3**34, 2**55, 2**60])
def test_large_ones_are_normal_in_shape(sigma: int) -> None:
    size = 1_000_000
    samples = sample(sigma, size, generator(sigma % 1009))
    scaled = samples / sigma
    assert abs(scaled.mean()) < 4 / math.sqrt(size)
    assert abs(scaled.var() - 1) < 4 * math.sqrt(2 / size)
    assert abs((scaled**4).mean() - 3) < 4 * math.sqrt(96 / size)
    assert abs((samples < 0).mean() - 0.5) < 2 / math.sqrt(size)
    assert stats.kstest(scaled, "norm").pvalue > LEAST_P
    # Classes narrower than a block of the table, cut at quantiles.
    cuts = stats.norm.ppf(np.arange(1, 2000) / 2000)
    assert stats.chisquare(np.bincount(np.searchsorted(cuts, scaled), minlength=2000)).pvalue > LEAST_P
    for low in (samples & 255, samples % 3, samples // 997 % 251):
        assert stats.chisquare(np.bincount(low)).pvalue > LEAST_P


@pytest.mark.parametrize("sigma", [2**20, 2**52])
def test_neighbours_are_independent(sigma: int) -> None:
    scaled = sample(sigma, 1_000_000, generator(3)) / sigma
    for lag in (1, 2, discrete_gaussian._PIECE):
        for power in (1, 2):
            one, other = scaled[lag:] ** power, scaled[:-lag] ** power
            assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(one.size)


def bernoulli_exp(gamma: Fraction, draw: np.random.Generator) -> bool:
    """Algorithm 1 of arXiv 2004.00010, in Python's fractions."""
    while gamma > 1:
        if not bernoulli_exp(Fraction(1), draw):
            return False
        gamma -= 1
    k = 1
    while draw.integers(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


def published(sigma: int, draw: np.random.Generator) -> int:
    """Algorithms 2 and 3 of arXiv 2004.00010."""
    t = sigma + 1
    while True:
        u = int(draw.integers(t))
        if not bernoulli_exp(Fraction(u, t), draw):
            continue
        v = 0
        while bernoulli_exp(Fraction(1), draw):
            v += 1
        y, negative = u + t * v, bool(draw.integers(2))
        if (y == 0 and negative) or not bernoulli_exp(Fraction((y * t - sigma**2) ** 2, 2 * sigma**2 * t**2), draw):
            continue
        return -y if negative else y


@pytest.mark.parametrize("sigma", [1, 3])
def test_the_published_algorithm_gives_the_same_distribution(sigma: int) -> None:
    draw, size = generator(5), 20_000
    theirs = Counter(np.clip([published(sigma, draw) for _ in range(size)], -3 * sigma, 3 * sigma).tolist())
    ours = Counter(np.clip(sample(sigma, size, generator(6)), -3 * sigma, 3 * sigma).tolist())
    counts = [[theirs[x], ours[x]] for x in range(-3 * sigma, 3 * sigma + 1)]
    assert stats.chi2_contingency(counts).pvalue > LEAST_P


@pytest.mark.parametrize("sigma", [1, 2, 15, 16, 33, 100, 3**20, 2**44, 2**60])
def test_the_histogram_is_one(sigma: int) -> None:
    """Sure cells are below the curve at all integers of their block, and the whole column is not: with that, every
    integer's chance is S * exp(-x^2 / (2 sigma^2)) cells, to the last digit.
    """
    table = discrete_gaussian._table(sigma)
    width, num = 1 << table.shift, table.num_sure + table.num_doubtful
    sure, columns = Counter(table.first[: table.num_sure].tolist()), Counter(table.first[:num].tolist())
    assert sorted(columns) == list(range(-table.reach, table.reach, width))
    assert table.reach >= 6 * sigma
    assert num < 2**14
    heights: dict[int, set[float]] = {start: set() for start in columns}
    doubtful = zip(table.first[table.num_sure : num].tolist(), table.below[: table.num_doubtful].tolist(), strict=True)
    for start, below in doubtful:
        heights[start].add(below)
    for start, height in columns.items():
        assert heights[start] == set(range(sure[start], height))
        curve = [
            mpmath.mpf(table.scale) / 256 * mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(sigma) ** 2))
            for x in {start, start + width // 2, start + width - 1, max(start, min(0, start + width - 1))}
        ]
        assert all(sure[start] <= value <= height for value in curve)
    assert table.below[table.num_doubtful :].min() > table.scale / 256  # nothing is taken in the cells that are left


@pytest.mark.parametrize("sigma", [1, 5, 100, 1000])
def test_the_tails_have_their_probability(sigma: int) -> None:
    table, words, size = discrete_gaussian._table(sigma), generator(1), 50_000
    uniforms = words.integers(0, table.tail_limit, size=size, dtype=np.uint64).tolist()
    further = iter(words.integers(0, 2**64, size=4 * size, dtype=np.uint64).tolist())
    trials = Counter(discrete_gaussian._tail(table, uniform, further.__next__) for uniform in uniforms)
    # A cell is 2^-14 of all, and an integer of a block has 1 / width of its cells.
    curve = {x: math.exp(-0.5 * (x / sigma) ** 2) * table.scale / 256 / (1 << table.shift) for x in range(12 * sigma)}
    per_trial = size / (table.tail_limit / 2**64)
    # Both sides, and classes of a twentieth of sigma.
    classes, expected = {}, Counter[tuple[bool, int]]()
    for x in [*range(table.reach, 12 * sigma), *range(-12 * sigma + 1, -table.reach)]:
        classes[x] = (x < 0, min(12, 20 * (abs(x) - table.reach) // sigma))
        expected[classes[x]] += curve[abs(x)] * per_trial
    observed = Counter[tuple[bool, int]]()
    for x, count in trials.items():
        if x is not None:
            observed[classes[x]] += count
    kept = [key for key, value in expected.items() if value >= 10]
    chi_square = sum((observed[key] - expected[key]) ** 2 / expected[key] for key in kept)
    assert stats.chi2.sf(chi_square, len(kept)) > LEAST_P
    assert sum(expected.values()) > 500


@pytest.mark.parametrize("sigma", [1, 3, 100, 2**20, 2**55])
@pytest.mark.parametrize("error", [2.0**-42, -(2.0**-42)])
def test_a_machine_s_exp_changes_no_sample(monkeypatch: pytest.MonkeyPatch, sigma: int, error: float) -> None:
    before = sample(sigma, 300_000, generator(2))
    monkeypatch.setattr(discrete_gaussian, "_exp", lambda values: np.exp(values) * (1 + error))
    np.testing.assert_array_equal(sample(sigma, 300_000, generator(2)), before)


@pytest.mark.parametrize("sigma", [1, 3, 100, 2**20, 2**55])
def test_integers_decide_as_floats_do(monkeypatch: pytest.MonkeyPatch, sigma: int) -> None:
    before = sample(sigma, 100_000, generator(3))
    decisions = []
    exact = discrete_gaussian._is_below
    monkeypatch.setattr(discrete_gaussian, "_is_below", lambda *a, **k: decisions.append(1) or exact(*a, **k))
    monkeypatch.setattr(discrete_gaussian, "_MARGIN", 1.0)
    # Floats that say nothing: not one decision is theirs.
    monkeypatch.setattr(discrete_gaussian, "_exp", np.ones_like)
    np.testing.assert_array_equal(sample(sigma, 100_000, generator(3)), before)
    assert len(decisions) > 50


class Given:
    """Gives the arrays of words that it holds, one after the other."""

    def __init__(self, *words: list[int]) -> None:
        self._words = iter(words)

    def integers(self, *_: int, size: int, dtype: type[np.uint64]) -> NDArray[np.uint64]:
        words = np.array(next(self._words), dtype=dtype)
        assert words.size == size
        return words


@pytest.mark.parametrize("sigma", [1, 3, 1000, 3**20, 2**44, 2**60 - 1])
def test_decisions_are_right_next_to_the_bound(sigma: int) -> None:
    """U is put 1 to 2^55 units of 2^-64 below or above S * exp(-x^2 / (2 sigma^2)) - p, told with 600 bits."""
    table, draw = discrete_gaussian._table(sigma), generator(8)
    out, cells, words, expected = [], [], [], []
    while len(out) < 500:
        cell = int(draw.integers(table.num_doubtful))
        x = int(table.first[table.num_sure + cell]) + int(draw.integers(1 << table.shift))
        bound = mpmath.mpf(table.scale) / 256 * mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(sigma) ** 2))
        away = int(2.0 ** draw.uniform(0, 55)) * int(draw.choice([-1, 1]))
        word = int(mpmath.floor((bound - int(table.below[cell])) * mpmath.mpf(2) ** 64)) + away
        if 0 <= word < 2**64:
            out.append(x)
            cells.append(cell)
            words.append(word)
            expected.append(away < 0)
    trial = discrete_gaussian._Trial(Given(words))  # type: ignore[arg-type]
    found = trial._accepted(table, np.array(out), np.arange(len(out)), np.array(cells))
    np.testing.assert_array_equal(found, expected)


def test_floats_decide_nearly_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrete_gaussian, "_is_below", lambda *_, **__: pytest.fail("an exact decision"))
    sample(2**20, 1_000_000, generator(4))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_further_bits_are_drawn_until_the_decision_is_exact(missing: int) -> None:
    """U's first words are those of the bound itself: only a later one decides."""
    table, x = discrete_gaussian._table(7), 9
    bound = mpmath.mpf(table.scale) / 256 * mpmath.exp(-mpmath.mpf(x * x) / (2 * 7**2))
    below = int(mpmath.floor(bound))
    digits = [
        int(mpmath.floor(bound * mpmath.mpf(2) ** (64 * k))) % 2**64 for k in range(1, missing + 2)
    ]  # after the point
    for last, expected in ((digits[-1] - 1, True), (digits[-1] + 1, False)):
        words = iter([*digits[:-1], last])
        uniform = discrete_gaussian._Uniform(next(words), words.__next__)
        assert discrete_gaussian._is_below(uniform, table, x, below=below) is expected
        assert uniform.num == 64 * (missing + 1)


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [(0, 1), (1, 2), (1, 3), (81, 98), (18, 1), (10**40, 10**38 + 1), (1, 2**121), (999, 2)],
)
@pytest.mark.parametrize("num_bits", [64, 96, 400])
def test_the_exponential_lies_between_its_bounds(numerator: int, denominator: int, num_bits: int) -> None:
    exact = mpmath.exp(-mpmath.mpf(numerator) / denominator) * mpmath.mpf(2) ** num_bits
    low, high = discrete_gaussian._exp_bounds(numerator, denominator, num_bits)
    assert low < exact < high
    assert high - low == 3


SAMPLES = {
    1: "72803ef042e84326",
    1000: "03e75c46ca3a1eb7",
    2**44: "be4b647360c9fbaf",
    2**60 - 1: "5f66047487101cba",
}


@pytest.mark.parametrize("sigma", SAMPLES)
def test_samples_are_the_same_everywhere(sigma: int) -> None:
    found = sample(sigma, 100_000, generator(11)).astype("<i8").tobytes()
    assert hashlib.sha256(found).hexdigest()[:16] == SAMPLES[sigma]


def test_two_threads_give_what_one_gives() -> None:
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda seed: sample(12345, 200_000, generator(seed)), [1, 2]))
    for seed, found in zip([1, 2], both, strict=True):
        np.testing.assert_array_equal(found, sample(12345, 200_000, generator(seed)))


def test_zero_is_zeros_and_draws_nothing() -> None:
    draw = generator(0)
    np.testing.assert_array_equal(sample(0, 5, draw), np.zeros(5, dtype=np.int64))
    assert draw.bit_generator.state == generator(0).bit_generator.state
    assert sample(3, 0, draw).shape == (0,)


@pytest.mark.parametrize("sigma", [0, 1, 2**60])
def test_samples_are_int64(sigma: int) -> None:
    assert sample(np.int64(sigma), 10, generator(0)).dtype == np.int64


def test_what_is_no_standard_deviation_is_refused() -> None:
    with pytest.raises(TypeError):
        sample(1.5, 1, generator(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        sample(-1, 1, generator(0))
    with pytest.raises(ValueError, match="negative"):
        sample(1, -1, generator(0))
    with pytest.raises(UserError, match=r"more than 2\^60.*lower privacy.noise_multiplier"):
        sample(2**60 + 1, 1, generator(0))


@pytest.mark.parametrize("is_left", [False, True])
def test_a_sample_outside_int64_is_refused(is_left: bool) -> None:
    table = discrete_gaussian._table(2**60)
    words = iter([32 * 2 + is_left, 0, 0])  # fifth tail block, its first integer, U = 0
    with pytest.raises(UserError, match="outside 64 bits"):
        discrete_gaussian._tail(table, 0, lambda: next(words, 0))
