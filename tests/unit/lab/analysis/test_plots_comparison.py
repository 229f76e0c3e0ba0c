"""Methods side by side: every line is drawn and named, and no name covers another."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from fedlit.lab.analysis.comparison_plot import plot_comparison, spread

Record = dict[str, Any]


def runs_of(num_methods: int, num_rounds: int = 6, key: str = "global/f1_macro") -> dict[str, list[Record]]:
    """Return runs whose last values are close together."""
    return {
        f"method_{i}": [
            {"round": r, key: 0.2 if r == 0 else 0.8 - 0.5 / (r + 1) + 0.004 * i} for r in range(num_rounds + 1)
        ]
        for i in range(num_methods)
    }


def data_lines(axes: Axes) -> list[list[tuple[float, float]]]:
    """Return the lines in data coordinates, without the hollow marks of round 0 and the swatches beside names."""
    return [
        list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in axes.lines
        if line.get_transform() != axes.transAxes and line.get_linestyle() != "None"
    ]


def names(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_every_value_is_drawn_and_every_line_named(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = runs_of(3)
    plot_comparison(runs, "f1_macro", tmp_path / "f1.png", "brain tumors")
    (axes,) = drawn[0].axes
    assert data_lines(axes) == [[(r["round"], r["global/f1_macro"]) for r in records] for records in runs.values()]
    values = [records[-1]["global/f1_macro"] for records in runs.values()]
    assert names(axes) == [f"method_{i}  {value:.3f}" for i, value in enumerate(values)]
    assert axes.get_ylabel() == "Macro F1 (F1)"
    assert axes.get_title(loc="left") == "brain tumors"
    hollow = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in hollow] == [[0]] * 3


@pytest.mark.parametrize("num_methods", [1, 16, 33])
def test_names_do_not_touch_and_are_in_the_picture(tmp_path: Path, drawn: list[Figure], num_methods: int) -> None:
    path = tmp_path / "f1.png"
    plot_comparison(runs_of(num_methods), "f1_macro", path, "a title of some length " * 9)
    (figure,) = drawn
    figure.set_dpi(150)  # what it was written with, and the texts were measured at
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts if text.get_text()), key=lambda b: b.y0)
    assert len(boxes) == num_methods
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    area, axes = figure.bbox, figure.axes[0].get_window_extent()
    assert all(axes.x1 < box.x0 < box.x1 <= area.x1 and area.y0 <= box.y0 < box.y1 <= area.y1 for box in boxes)
    assert axes.width > 0.6 * area.width
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) > min(num_methods, 20)
    height, width, _ = imread(path).shape
    assert (width, height) == tuple(round(inches * 150) for inches in figure.get_size_inches())


def test_lower_is_better_stands_at_the_axis(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_comparison(runs_of(2, key="global/loss"), "loss", tmp_path / "loss.png")
    assert drawn[0].axes[0].get_ylabel() == "Loss (nats per token or example, lower is better)"


def test_own_scores_stand_in_and_runs_without_the_score_are_named(tmp_path: Path, drawn: list[Figure]) -> None:
    runs: Mapping[str, Sequence[Record]] = {
        "global": [
            {"round": 0, "global/accuracy": 0.1, "own/accuracy": 0.9},
            {"round": 1, "global/accuracy": math.nan},
        ],
        "own$": [{"round": 0, "own/accuracy": 0.2}, {"round": 2, "own/accuracy": 0.3}],
        "empty": [{"round": 0}],
    }
    plot_comparison(runs, "accuracy", tmp_path / "accuracy.png", "$x$")
    (axes,) = drawn[0].axes
    assert data_lines(axes) == [[(0, 0.1)], [(0, 0.2), (2, 0.3)]]
    assert axes.get_xlabel().splitlines()[1:] == [
        "mean over clients on their own test rows: own$", "without this score: empty"
    ]  # fmt: skip


@pytest.mark.parametrize("runs", [{}, {"a": []}, {"a": [{"round": 0, "global/mcc": 0.0}]}])
def test_every_shape_of_runs_has_a_picture(tmp_path: Path, drawn: list[Figure], runs: dict[str, list[Record]]) -> None:
    plot_comparison(runs, "mcc", tmp_path / "plots" / "mcc.png")
    assert (tmp_path / "plots" / "mcc.png").is_file()
    if not any(runs.values()):
        assert names(drawn[0].axes[0]) == ["no values"]


@given(wanted=st.lists(st.floats(0, 1), max_size=20).map(sorted), gap=st.floats(0.001, 0.05))
def test_spread_keeps_order_and_distance(wanted: list[float], gap: float) -> None:
    places = spread(wanted, gap)
    assert len(places) == len(wanted)
    assert all(high - low >= gap - 1e-9 for low, high in pairwise(places))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    if all(high - low > gap + 1e-9 for low, high in pairwise(wanted)):
        assert places == pytest.approx(wanted)


def test_spread_puts_a_crowd_around_its_middle() -> None:
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert spread([0.2, 0.5, 0.55], 0.1) == pytest.approx([0.2, 0.475, 0.575])
    assert spread([0.0, 0.0], 0.1) == pytest.approx([0.0, 0.1])
    assert spread([0.98, 1.0], 0.1) == pytest.approx([0.9, 1.0])
