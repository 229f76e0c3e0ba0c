"""Lines stand out against their page and from one another."""

import itertools

import numpy as np
import pytest

from fedlit.lab.analysis.palette import PALETTE
from fedlit.lab.dashboard.colours import DARK_PAGE, LIGHT_PAGE, shades


def linear(colour: str) -> np.ndarray:
    """Return linear RGB of `#RRGGBB` (IEC 61966-2-1)."""
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    dark, light = sorted(linear(colour) @ (0.2126, 0.7152, 0.0722) for colour in (one, other))
    return float((light + 0.05) / (dark + 0.05))


def lab(colour: str) -> np.ndarray:
    """Return CIELAB under D65."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratios = matrix @ linear(colour) / (0.95047, 1.0, 1.08883)
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("scheme", "page"), [("light", LIGHT_PAGE), ("dark", DARK_PAGE)])
def test_every_line_stands_out_and_apart(scheme: str, page: str) -> None:
    colours = [shade[scheme] for shade in shades()]
    assert min(contrast(colour, page) for colour in colours) >= 3.0
    distances = [np.linalg.norm(lab(one) - lab(other)) for one, other in itertools.combinations(colours, 2)]
    assert min(distances) >= 25  # 2.3 is just noticeable


def test_a_shade_keeps_the_hue_of_its_colour() -> None:
    for colour, shade in zip(PALETTE, shades(), strict=True):
        for variant in shade.values():
            (_, *one), (_, *other) = lab(colour), lab(variant)
            cosine = np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
            assert cosine > 0.85


def test_the_measures_are_right() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert lab("#FFFFFF") == pytest.approx((100, 0, 0), abs=0.05)
