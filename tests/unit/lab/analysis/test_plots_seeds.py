"""Curves and scores over seeds: the means and deviations are right, methods are told apart in grey, files are whole."""

import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fedlit.lab.analysis import panels
from fedlit.lab.analysis.plots import Points
from fedlit.lab.analysis.seeds_plot import Curves, Reached, _look, plot_curves_of_seeds, plot_reached


def points(start: float, num_rounds: int = 4) -> Points:
    return [(number, start + 0.1 * number) for number in range(num_rounds + 1)]


def test_a_curve_is_the_mean_with_a_band_of_one_sample_deviation(tmp_path: Path, drawn: list[Figure]) -> None:
    """The second seed ended after round 2: means of fewer seeds would make a step."""
    curves = [Curves(panel="p", name="fedit", by_seed=[points(0.1), points(0.4, 2), points(0.2)])]
    plot_curves_of_seeds(curves, "rouge_l", tmp_path / "curves", "a title")
    (axes,) = drawn[0].axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 1, 2]
    assert list(line.get_ydata()) == pytest.approx([statistics.fmean([0.1, 0.4, 0.2]) + 0.1 * r for r in range(3)])
    (band,) = (found for found in axes.collections if isinstance(found, PolyCollection))
    heights = [y for x, y in band.get_paths()[0].vertices if x == 0]
    assert max(heights) - min(heights) == pytest.approx(2 * statistics.stdev([0.1, 0.4, 0.2]))


def test_one_seed_has_no_band(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_curves_of_seeds(
        [Curves(panel="p", name="fedit", by_seed=[points(0.1)])], "loss", tmp_path / "curves", "a title"
    )
    (axes,) = drawn[0].axes
    assert not axes.collections
    assert axes.get_ylabel() == "Loss, lower is better"


def test_a_method_has_one_look_in_all_panels(tmp_path: Path, drawn: list[Figure]) -> None:
    first = [Curves(panel="p", name=name, by_seed=[points(0.1)]) for name in ("fedit", "scl")]
    second = [Curves(panel="q", name=name, by_seed=[points(0.2)]) for name in ("scl", "full", "fedit")]
    plot_curves_of_seeds([*first, *second], "rouge_l", tmp_path / "curves", "a title")
    looks = [[(line.get_color(), line.get_marker()) for line in axes.lines] for axes in drawn[0].axes]
    assert looks[0] == [looks[1][2], looks[1][0]]
    assert looks[1][1] not in looks[0]


def test_methods_are_told_apart_without_colour() -> None:
    looks = [_look(i, i) for i in range(20)]
    assert len({(str(look["linestyle"]), look["marker"], look["color"]) for look in looks}) == 20
    for one, other in pairwise(looks[:11]):
        greys = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (to_rgb(look["color"]) for look in (one, other))]
        assert one["marker"] != other["marker"]
        assert one["linestyle"] != other["linestyle"] or abs(greys[0] - greys[1]) > 0.1


def test_reached_shows_seeds_mean_deviation_and_the_published(tmp_path: Path, drawn: list[Figure]) -> None:
    reached = [
        Reached(panel="p", name="scl", values=[0.1, 0.3], published=0.42),
        Reached(panel="p", name="fedit", values=[0.2], final=False),
        Reached(panel="p", name="full", values=[]),
    ]
    plot_reached(reached, "rouge_l", tmp_path / "reached", "a title")
    (axes,) = drawn[0].axes
    drawn_points = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert ([0.42], [0]) in drawn_points
    assert ([0.1, 0.3], [0, 0]) in drawn_points
    assert ([pytest.approx(0.2)], [0]) in drawn_points
    assert [text.get_text() for text in axes.texts] == ["no value"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["scl", "fedit", "full"]
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "mean ± sample standard deviation",
        "one seed",
        "not done",
        "published",
    ]


def test_panels_go_on_further_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = [Reached(panel=f"panel {i}", name="fedit", values=[0.1]) for i in range(3)]
    monkeypatch.setattr(panels, "MAX_PANELS", 2)
    written = plot_reached(reached, "rouge_l", tmp_path / "reached", "a title")
    names = ["reached.png", "reached.pdf", "reached-2.png", "reached-2.pdf"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_equal_pictures_are_equal_files_without_a_date_or_drawn_fonts(tmp_path: Path) -> None:
    curves = [Curves(panel="$p_", name="a_$b", by_seed=[points(0.1), points(0.2)])]
    for stem in ("one", "other"):
        plot_curves_of_seeds(curves, "rouge_l", tmp_path / stem, "a $title_")
    for suffix in (".png", ".pdf"):
        one, other = ((tmp_path / stem).with_suffix(suffix).read_bytes() for stem in ("one", "other"))
        assert one == other
    assert one.startswith(b"%PDF")
    assert b"CreationDate" not in one
    assert b"/Type3" not in one


def test_panels_of_one_scale_share_their_axis(tmp_path: Path, drawn: list[Figure]) -> None:
    curves = [
        Curves(panel=panel, name="fedit", by_seed=[points(start)], scale=scale)
        for panel, start, scale in (("p", 0.1, "a"), ("q", 5.0, "a"), ("r", 30.0, "b"))
    ]
    plot_curves_of_seeds(curves, "rouge_l", tmp_path / "curves", "a title")
    first, second, third = (axes.get_ylim() for axes in drawn[0].axes[:3])
    assert first == second
    assert first[0] < 0.1
    assert 5.4 < first[1] < third[0]
    reached = [Reached(panel=p, name="scl", values=[v], scale="a") for p, v in (("p", 0.1), ("q", 0.9))]
    plot_reached(reached, "rouge_l", tmp_path / "reached", "a title")
    assert drawn[-1].axes[0].get_xlim() == drawn[-1].axes[1].get_xlim()


def test_scores_are_named_in_the_unit_of_the_paper(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_curves_of_seeds([Curves(panel="p", name="fedit", by_seed=[points(10)])], "rouge_l", tmp_path / "c", "t", 100.0)
    assert drawn[0].axes[0].get_ylabel() == "ROUGE-L (F1 × 100)"
