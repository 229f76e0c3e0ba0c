"""Numbers of a curve, held against sums over its points."""

import numpy as np
import pytest

from fedlit.lab.analyses.stability import steadiness


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_drops_and_area(lower_is_better: bool) -> None:
    rng = np.random.default_rng(3)
    rounds = np.array([0, 1, 2, 4, 7, 8])
    values = rng.normal(size=len(rounds))
    found = steadiness(dict(zip(rounds.tolist(), values.tolist(), strict=True)), lower_is_better=lower_is_better)
    worse = np.diff(values) if lower_is_better else -np.diff(values)
    expected = {int(place): loss for place, loss in zip(rounds[1:], worse, strict=True) if loss > 0}
    assert found.drops == pytest.approx(expected)
    assert found.area == pytest.approx(float(np.trapezoid(values, rounds)) / 8)
    best = values.argmin() if lower_is_better else values.argmax()
    assert (found.best, found.best_round) == (values[best], rounds[best])
    assert (found.first, found.last) == (values[0], values[-1])


def test_a_single_point_is_its_own_area() -> None:
    found = steadiness({3: 0.25}, lower_is_better=False)
    assert (found.area, dict(found.drops), found.best_round) == (0.25, {}, 3)
