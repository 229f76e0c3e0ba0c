"""Polynomials through points with the errors of their coefficients, and a rank correlation (numpy, scipy)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A polynomial by least squares, constant first.

    errors: standard errors of the coefficients, from the residuals; NaN without a point more than coefficients.
    residual: standard deviation of the residuals, with as many degrees of freedom as points less coefficients; NaN
    likewise. aicc: Akaike's criterion with the correction for few points, of normal residuals: the smaller, the better
    a fit predicts; NaN where there are too few points for it, and -inf of a fit without a residual.
    """

    coefficients: tuple[float, ...]
    errors: tuple[float, ...]
    residual: float
    aicc: float


def fit_polynomial(x: Sequence[float], y: Sequence[float], degree: int) -> Fit:
    """Return the polynomial of a degree through more points than it has coefficients, or as many."""
    number, size = len(x), degree + 1
    assert number >= size, "fewer points than coefficients"
    scale = max(map(abs, x)) or 1.0  # powers of the same size: the normal equations of raw ones are near singular
    powers = scale ** np.arange(size)
    design = np.vander(np.asarray(x, dtype=np.float64) / scale, size, increasing=True)
    values = np.asarray(y, dtype=np.float64)
    found = np.linalg.lstsq(design, values, rcond=None)[0]
    squares = float(np.sum((values - design @ found) ** 2))
    spare = number - size
    variance = squares / spare if spare else math.nan
    errors = np.sqrt(variance * np.diag(np.linalg.pinv(design.T @ design)))
    return Fit(
        coefficients=tuple(float(value) for value in found / powers),
        errors=tuple(float(value) for value in errors / powers),
        residual=math.sqrt(variance),
        aicc=_aicc(squares, number, size + 1),
    )


def _aicc(squares: float, number: int, parameters: int) -> float:
    """Return the criterion; `parameters` counts the variance of the residuals."""
    if number - parameters - 1 <= 0:
        return math.nan
    if squares <= 0:
        return -math.inf
    correction = 2 * parameters * (parameters + 1) / (number - parameters - 1)
    return number * math.log(squares / number) + 2 * parameters + correction


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's correlation; None of fewer than three points, or where one of the two does not vary."""
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return float(stats.spearmanr(x, y).statistic)
