"""The picture of deviations shows every layer in every round as it was measured."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from fedlit.lab.analysis.heatmap import PREFIX, deviating_layers, plot_deviation, short_names

LAYERS = [f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1, 10) for p in "qv"]


def some_records(num_rounds: int = 3) -> list[dict[str, Any]]:
    deviations = [
        {f"{PREFIX}{layer}": 10.0 ** -(i + r) for i, layer in enumerate(LAYERS)} for r in range(1, num_rounds + 1)
    ]
    return [{"round": 0}, *({"round": r + 1, "lora/deviation": 1.0, **row} for r, row in enumerate(deviations))]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what is drawn as colours: x edges, y edges, values."""
    found: list[Any] = []
    draw = Axes.pcolormesh

    def record(self: Axes, x: Any, y: Any, values: Any, **look: Any) -> Any:
        found.append((np.asarray(x), np.asarray(y), np.asarray(values), look.get("norm")))
        return draw(self, x, y, values, **look)

    monkeypatch.setattr(Axes, "pcolormesh", record)
    return found


def test_every_value_has_its_place(drawn: list[Any], tmp_path: Path) -> None:
    records = some_records()
    del records[2]  # round 2
    records[-1][f"{PREFIX}{LAYERS[3]}"] = 0.0
    assert plot_deviation(records, tmp_path / "deviation.png", title="a $run")
    (_, _, zeros, _), (x, y, values, norm) = drawn[:2]  # then the scale of colours
    assert x.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert len(y) == len(LAYERS) + 1
    assert values[:, 0] == pytest.approx([10.0 ** -(i + 1) for i in range(6)])
    assert np.isnan(values[:, 1]).all()
    assert values[:3, 2] == pytest.approx([1e-3, 1e-4, 1e-5])
    assert math.isnan(values[3, 2])
    assert np.argwhere(~np.isnan(zeros)).tolist() == [[3, 2]]
    assert (norm.vmin, norm.vmax) == pytest.approx((1e-8, 0.1))


def test_colours_darken_with_the_deviation(tmp_path: Path) -> None:
    """Also in grey."""
    plot_deviation(some_records(1), tmp_path / "deviation.png")
    grey = np.asarray(Image.open(tmp_path / "deviation.png").convert("L")).astype(float)
    height, width = grey.shape
    column = grey[:, width // 2]
    cells = column[int(0.2 * height) : int(0.8 * height)]
    levels = cells[np.insert(np.abs(np.diff(cells)) > 3, 0, True)]
    assert len(levels) >= 4
    assert (np.diff(levels) > 0).all()


@pytest.mark.parametrize("records", [[], [{"round": 0}], [{"round": 1, "lora/deviation": 1.0}]])
def test_without_deviations_there_is_no_picture(records: list[dict[str, Any]], tmp_path: Path) -> None:
    assert not plot_deviation(records, tmp_path / "deviation.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [0.0, 1e-7])
def test_one_value_everywhere_is_drawn(value: float, tmp_path: Path) -> None:
    records = [{"round": r, **{f"{PREFIX}{layer}": value for layer in LAYERS}} for r in (1, 2)]
    assert plot_deviation(records, tmp_path / "deviation.png")
    assert Image.open(tmp_path / "deviation.png").size[0] > 600


def test_many_layers_and_rounds_fit(tmp_path: Path) -> None:
    layers = [f"model.layers.{i}.mlp.{p}_proj" for i in range(80) for p in ("gate", "up", "down")]
    records = [{"round": r, **{f"{PREFIX}{layer}": 1e-6 * r for layer in layers}} for r in range(1, 101)]
    assert plot_deviation(records, tmp_path / "deviation.png")
    width, height = Image.open(tmp_path / "deviation.png").size
    assert (width, height) <= (1700, 2100)


def test_layers_keep_the_models_order_and_lose_what_they_share() -> None:
    assert deviating_layers(some_records()) == LAYERS
    assert short_names(LAYERS)[-2:] == ["10.self_attn.q_proj", "10.self_attn.v_proj"]
    assert short_names(["a.b.c.d", "a.x.c.d"]) == ["b", "x"]
    assert short_names(["a.b", "a.b"]) == ["b", "b"]
    assert short_names(["only.one"]) == ["one"]
    assert short_names(["a", "a.b"]) == ["a", "a.b"]
    assert short_names([]) == []
