"""The confusion matrix: shades are shares of rows, numbers are counts, names are as given."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedlit.lab.analysis.confusion import MAX_WRITTEN, plot_confusion


def test_cells_and_names(tmp_path: Path, drawn: list[Figure]) -> None:
    matrix = [[8, 2, 0], [0, 0, 0], [1, 0, 3]]
    plot_confusion(matrix, ["glioma", "$x$", ""], tmp_path / "confusion.png", "round 6")
    axes = drawn[0].axes[0]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[0.8, 0.2, 0.0], [0.0, 0.0, 0.0], [0.25, 0.0, 0.75]]
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "8", (0, 1): "2", (2, 0): "1", (2, 2): "3"}  # (true, predicted)
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first class is at the top
    assert [label.get_text() for label in axes.get_yticklabels()] == ["glioma", "$x$", "(blank)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["glioma", "$x$", "(blank)"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert drawn[0].get_suptitle() == "round 6"


@pytest.mark.parametrize("num_classes", [1, MAX_WRITTEN, 100])
def test_every_number_of_classes_fits(tmp_path: Path, drawn: list[Figure], num_classes: int) -> None:
    plot_confusion(np.eye(num_classes, dtype=int).tolist(), None, tmp_path / "confusion.png", "a title " * 30)
    (figure,) = drawn
    axes = figure.axes[0]
    assert len(axes.texts) == (num_classes if num_classes <= MAX_WRITTEN else 0)
    labels = axes.get_yticklabels()
    assert labels[0].get_text() == "0"
    assert len(labels) <= 40
    area, boxes = figure.bbox, [label.get_window_extent() for label in (*labels, *axes.get_xticklabels())]
    assert all(area.x0 <= box.x0 and box.x1 <= area.x1 and area.y0 <= box.y0 for box in boxes)
