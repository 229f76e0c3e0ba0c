"""The plots: what is drawn is what the records say, for every shape of run; files are whole or not there."""

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from fedlit.client_names import labels
from fedlit.lab.analysis.curves import MAX_SCORES, plot_curves
from fedlit.lab.analysis.labels import MAX_LABELS, plot_label_distribution
from fedlit.lab.analysis.palette import PALETTE
from fedlit.scores import SCORES

Record = dict[str, Any]
TEXT_SCORES = ("rouge_l", "bleu_4")


def run_records(num_rounds: int, num_clients: int, *, every: int = 1, generate: bool = True) -> list[Record]:
    records: list[Record] = []
    for round_idx in range(num_rounds + 1):
        record: Record = {"round": round_idx, "seconds_s": 1.5}
        if round_idx:
            record |= {f"client/{i}/train_loss": 2.0 / round_idx + 0.1 * i for i in range(num_clients)}
        if round_idx % every == 0 or round_idx == num_rounds:
            record["global/loss"] = 3.0 / (round_idx + 1)
            if generate:
                record |= {"global/rouge_l": 0.01 * round_idx, "global/bleu_4": 0.002 * round_idx}
        records.append(record)
    return records


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.lines]


def panel(figure: Figure, name: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == name)


def segments(figure: Figure) -> list[tuple[int, float, float, str]]:
    """Return client, left end, width and colour of each segment."""
    found = []
    for collection in figure.axes[0].collections:
        colour = to_hex(collection.get_facecolor()[0]).upper()
        for path in collection.get_paths():
            box = path.get_extents()
            found.append((round((box.y0 + box.y1) / 2), box.x0, box.width, colour))
    return found


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_every_value_of_the_records_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    records = run_records(4, 2, every=2)
    plot_curves(records, tmp_path / "curves.png", scores=TEXT_SCORES, title="fedit-pydoc-tiny-seed0 · generate")
    (figure,) = drawn
    assert figure.get_suptitle() == "fedit-pydoc-tiny-seed0 · generate"
    loss = lines(panel(figure, "Loss"))
    for client_id in range(2):
        assert [(r["round"], r[f"client/{client_id}/train_loss"]) for r in records[1:]] in loss
    for name, key in [("Loss", "global/loss"), ("ROUGE-L", "global/rouge_l"), ("BLEU-4", "global/bleu_4")]:
        axes = panel(figure, name)
        assert [(r["round"], r[key]) for r in records if key in r] in lines(axes)
        assert [(0, records[0][key])] in lines(axes)  # the hollow mark of the untrained model
        assert texts(axes) == [f"{records[-1][key]:.3f}"]
        assert axes.texts[0].xy == (4, records[-1][key])
    assert legend_of(figure) == [
        "global model, evaluation",
        "before training",
        "client 0, training",
        "client 1, training",
    ]


def test_scores_of_clients_stand_in_the_panel_of_the_score(tmp_path: Path, drawn: list[Figure]) -> None:
    records = [{"round": 1, "client/3/rouge_l": 0.25, "client/3/train_loss": 2.0}]
    plot_curves(records, tmp_path / "curves.png", scores=TEXT_SCORES)
    assert lines(panel(drawn[0], "ROUGE-L")) == [[(1, 0.25)]]
    assert legend_of(drawn[0]) == ["client 3"]


@pytest.mark.parametrize(
    ("records", "titles"),
    [
        ([], ["Loss"]),
        ([{"round": 3}], ["Loss"]),
        (run_records(0, 0), ["Loss", "ROUGE-L", "BLEU-4"]),
        (run_records(1, 3)[1:], ["Loss", "ROUGE-L", "BLEU-4"]),
        (run_records(3, 3, generate=False), ["Loss"]),
        (run_records(90, 100, every=7), ["Loss", "ROUGE-L", "BLEU-4"]),
    ],
    ids=["nothing", "no values", "untrained", "one round", "loss only", "large"],
)
def test_every_shape_of_run_has_a_picture(
    tmp_path: Path, drawn: list[Figure], records: Sequence[Record], titles: list[str]
) -> None:
    path = tmp_path / "plots" / "curves.png"
    plot_curves(records, path, scores=TEXT_SCORES, title="a title of some length " * 12)
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == titles
    assert len(legend_of(drawn[0])) <= 8
    height, width, _ = imread(path).shape
    assert (width, height) == tuple(round(inches * 150) for inches in drawn[0].get_size_inches())


def test_the_scores_that_are_asked_for_have_panels_in_that_order(tmp_path: Path, drawn: list[Figure]) -> None:
    records: list[Record] = [
        {"round": r, "global/loss": 1.0} | {f"global/{s}": 0.1 * r for s in SCORES} for r in (0, 1)
    ]
    titles = {
        ("pearson", "nist"): ["Loss", "Pearson", "NIST"],
        ("accuracy", "absent", "f1_macro", "mcc", "f1"): ["Loss", "Accuracy", "Macro F1", "MCC"],
    }
    for scores, expected in titles.items():
        plot_curves(records, tmp_path / "curves.png", scores=scores)
        assert [axes.get_title(loc="left") for axes in drawn[-1].axes] == expected
        assert len(expected) <= 1 + MAX_SCORES
    assert [axes.get_ylabel() for axes in drawn[0].axes][1:] == ["correlation", "score"]


def own_records() -> list[Record]:
    return [
        {
            "round": r,
            "own/loss": 2.0 - r, "own/loss_worst": 3.0 - r, "own/accuracy": 0.5 * r, "own/accuracy_worst": 0.25 * r,
            "client/0/own/accuracy": 0.75 * r, "client/1/own/accuracy": 0.25 * r, "client/0/train_loss": 5.0 - r,
        }
        for r in (0, 1)
    ]  # fmt: skip


def test_scores_on_the_clients_own_rows_are_drawn_where_there_is_no_global_one(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    plot_curves(own_records(), tmp_path / "curves.png", scores=["accuracy"])
    assert lines(panel(drawn[0], "Accuracy")) == [
        [(0, 0.0), (1, 0.75)], [(0, 0.0), (1, 0.25)], [(0, 0.0), (1, 0.25)], [(0, 0.0), (1, 0.5)], [(0, 0.0)]
    ]  # fmt: skip
    assert lines(panel(drawn[0], "Loss")) == [
        [(0, 5.0), (1, 4.0)], [(0, 3.0), (1, 2.0)], [(0, 2.0), (1, 1.0)], [(0, 2.0)]
    ]  # fmt: skip
    assert legend_of(drawn[0])[:3] == [
        "mean over clients, each on its own test rows", "worst client on its own test rows", "before training"
    ]  # fmt: skip
    both = [record | {"global/accuracy": 0.9, "global/loss": 1.0} for record in own_records()]
    plot_curves(both, tmp_path / "curves.png", scores=["accuracy"])
    assert lines(panel(drawn[1], "Accuracy")) == [[(0, 0.9), (1, 0.9)], [(0, 0.9)]]
    assert legend_of(drawn[1])[0] == "global model, evaluation"


def test_means_of_private_models_are_called_so(tmp_path: Path, drawn: list[Figure]) -> None:
    records: list[Record] = [{"round": 1, "global/loss": 1.0, "global/loss_std": 0.1}]
    plot_curves(records, tmp_path / "curves.png")
    assert legend_of(drawn[0]) == ["mean of the clients' models, evaluation"]


def test_of_many_clients_the_mean_training_loss_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    records = run_records(3, 0)
    for record in records[1:]:
        record["clients/train_loss"] = 2.0 / record["round"]
    plot_curves(records, tmp_path / "curves.png")
    assert [(1, 2.0), (2, 1.0), (3, 2 / 3)] in lines(panel(drawn[0], "Loss"))
    assert "mean of the clients, training" in legend_of(drawn[0])


def test_missing_values_are_left_out_and_later_lines_count(tmp_path: Path, drawn: list[Figure]) -> None:
    records: list[Record] = [
        {"round": 2, "global/loss": 1.0},
        {"round": 0, "global/loss": 3.0},
        {"round": 1, "global/loss": math.nan, "client/0/train_loss": None},
        {"round": 3, "global/loss": math.inf},
        {"round": 2, "global/loss": 1.5},
        {"round": 2},
    ]
    plot_curves(records, tmp_path / "curves.png")
    assert lines(panel(drawn[0], "Loss")) == [[(0, 3.0), (2, 1.5)], [(0, 3.0)]]


def test_bars_are_the_counts_in_the_order_of_the_clients(tmp_path: Path, drawn: list[Figure]) -> None:
    counts: list[Mapping[str, int]] = [{"a": 5, "b": 2}, {}, {"b": 9, "c": 1}]
    plot_label_distribution(counts, tmp_path / "labels.png", title="labels")
    (figure,) = drawn
    b, a, c = PALETTE[:3]  # by falling total: 11, 5 and 1 rows
    assert legend_of(figure) == ["b", "a", "c"]
    assert sorted(segments(figure)) == sorted([(0, 0, 2, b), (0, 2, 5, a), (2, 0, 9, b), (2, 9, 1, c)])
    assert [t for t in texts(figure.axes[0]) if t.isdigit()] == ["7", "0", "10"]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top  # client 0 is at the top
    assert figure.axes[0].get_title(loc="left") == "labels"


@pytest.mark.parametrize(
    ("num_clients", "num_labels"), [(1, 0), (1, 1), (2, 1), (2, 20), (2, 40), (10, 20), (10, 21), (100, 1), (100, 40)]
)
def test_every_number_of_clients_and_labels_fits(
    tmp_path: Path, drawn: list[Figure], num_clients: int, num_labels: int
) -> None:
    labels = [f"label {i}" for i in range(num_labels)]
    counts = [{label: 1 + (i * j) % 7 for j, label in enumerate(labels)} for i in range(num_clients)]
    plot_label_distribution(counts, tmp_path / "labels.png", title="labels")
    (figure,) = drawn
    names = legend_of(figure)
    assert len(names) == min(num_labels, MAX_LABELS + 1)
    assert (names[-1:] == [f"other ({num_labels - MAX_LABELS} labels)"]) == (num_labels > MAX_LABELS)
    width_of = [0.0] * num_clients
    for client_id, _, width, _ in segments(figure):
        width_of[client_id] += width
    assert width_of == [sum(row.values()) for row in counts]
    area = figure.bbox
    for legend in figure.legends:
        box = legend.get_window_extent()
        axes = figure.axes[0].get_window_extent()
        assert box.x0 >= axes.x1, "the legend covers the bars"
        assert area.x0 <= box.x0 < box.x1 <= area.x1, "the legend is cut off"
        assert area.y0 <= box.y0 < box.y1 <= area.y1, "the legend is cut off"
    assert figure.axes[0].get_window_extent().width > 0.35 * area.width


@pytest.mark.parametrize("num_labels", [0, 1, 2, 40])
def test_the_picture_of_many_clients_is_no_larger(tmp_path: Path, drawn: list[Figure], num_labels: int) -> None:
    counts = [{f"label {j}": (i * j) % 5 for j in range(num_labels)} for i in range(2000)]
    plot_label_distribution(counts, tmp_path / "labels.png", title="labels")
    (figure,) = drawn
    width, height = (tmp_path / "labels.png").read_bytes()[16:20], (tmp_path / "labels.png").read_bytes()[20:24]
    assert int.from_bytes(width) * int.from_bytes(height) < 4_000_000
    names = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert len(names) == min(num_labels - 1 if num_labels > 1 else 0, MAX_LABELS + 1)  # "label 0" has no row


def test_many_clients_are_their_sizes_and_quantiles(tmp_path: Path, drawn: list[Figure]) -> None:
    counts = [{"a": 1 + i, "b": 3 * (1 + i)} for i in range(300)]
    plot_label_distribution([*counts, {}], tmp_path / "labels.png", title="labels")
    sizes, shares = drawn[0].axes
    assert drawn[0].get_suptitle() == "labels, 301 clients"
    assert [label.get_text() for label in shares.get_yticklabels()] == ["b", "a"]
    (_, medians) = shares.collections
    assert medians.get_offsets().tolist() == [[0.75, 0.0], [0.25, 1.0]]
    heights = sizes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.max(), heights.min()) == (1200, 0)


def test_names_are_shown_as_they_are(tmp_path: Path, drawn: list[Figure]) -> None:
    broken = r"$\frac{$"  # matplotlib raises if it reads this as mathematics
    plot_label_distribution([{"_x": 2, "": 1, broken: 1}], tmp_path / "labels.png", title=broken)
    assert legend_of(drawn[0]) == ["_x", "(blank)", broken]
    plot_curves([], tmp_path / "curves.png", title=broken)


def lightness(colour: str) -> float:
    """Return CIE L* of an sRGB colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16


def test_neighbouring_colours_differ_in_grey() -> None:
    assert all(abs(lightness(a) - lightness(b)) > 10 for a, b in pairwise([*PALETTE, PALETTE[0]]))


def test_a_failed_write_leaves_the_old_picture_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "curves.png"
    plot_curves([], path)
    before = path.read_bytes()

    def fail(canvas: FigureCanvasAgg, filename: Path, **kwargs: Any) -> None:
        Path(filename).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", fail)
    with pytest.raises(OSError, match="no space"):
        plot_curves(run_records(2, 2), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_needs_neither_pyplot_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fedlit.lab.analysis.curves import plot_curves\n"
        f"plot_curves([{{'round': 0, 'global/loss': 1.0}}], Path({str(tmp_path / 'c.png')!r}))\n"
        "sys.exit(bool({'matplotlib.pyplot', 'torch', 'lightning'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[4]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


def test_bars_and_curves_carry_the_clients_names(tmp_path: Path, drawn: list[Figure]) -> None:
    names = labels([r"Sankt $\frac{$ Gallen", "the longest name that a hospital of this town has ever had", "north"])
    plot_label_distribution([{"a": 5}, {"b": 2}, {"a": 9, "b": 1}], tmp_path / "labels.png", title="t", names=names)
    ticks = [tick.get_text() for tick in drawn[0].axes[0].get_yticklabels()]
    assert ticks == [r"Sankt $\frac{$ Gallen", "the longest name that…s ever had", "north"]
    drawn[0].draw_without_rendering()
    for tick in drawn[0].axes[0].get_yticklabels():
        assert drawn[0].bbox.x0 <= tick.get_window_extent().x0, "the name is cut off"
    assert drawn[0].axes[0].get_window_extent().width > 0.35 * drawn[0].bbox.width
    records = [{"round": 1, "global/loss": 1.0, **{f"client/{i}/train_loss": float(i) for i in range(3)}}]
    plot_curves(records, tmp_path / "curves.png", names=names)
    assert [text for text in legend_of(drawn[1]) if text.endswith(", training")] == [f"{n}, training" for n in names]
    box = drawn[1].legends[0].get_window_extent()
    assert drawn[1].bbox.x0 <= box.x0 < box.x1 <= drawn[1].bbox.x1, "the legend is cut off"
