"""The figures that a test draws."""

from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are written."""
    figures: list[Figure] = []
    write = FigureCanvasAgg.print_figure

    def keep(canvas: FigureCanvasAgg, *args: Any, **kwargs: Any) -> Any:
        figures.append(canvas.figure)
        return write(canvas, *args, **kwargs)

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", keep)
    return figures
