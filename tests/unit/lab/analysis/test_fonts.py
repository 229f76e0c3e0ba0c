"""Names in any script have the letters of an installed font, and what none has is told once."""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from fedlit.lab.analysis import fonts
from fedlit.lab.analysis.plots import save

CHINESE, HINDI, CUNEIFORM = "你好", "नमस्ते", "𒀀𒀁"


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Return a function that installs a font of squares for these letters, and take all of them away again; fonts of
    this machine other than matplotlib's own are out of sight.
    """
    before = list(fontManager.ttflist)
    fontManager.ttflist[:] = [entry for entry in before if entry.name.startswith("DejaVu")]
    fonts._fonts_with.cache_clear()
    fonts._told.clear()

    def make(name: str, letters: str) -> Path:
        pen = TTGlyphPen(None)
        pen.moveTo((100, 0))
        for point in ((100, 700), (800, 700), (800, 0)):
            pen.lineTo(point)
        pen.closePath()
        square = pen.glyph()
        names = [".notdef", *(f"u{ord(char):x}" for char in letters)]
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({ord(char): f"u{ord(char):x}" for char in letters})
        builder.setupGlyf(dict.fromkeys(names, square))
        builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 100)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": name, "styleName": "Regular"})
        builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
        builder.setupPost()
        path = tmp_path / f"{name}.ttf"
        builder.save(path)
        fontManager.addfont(path)
        return path

    yield make
    fontManager.ttflist[:] = before
    fontManager._findfont_cached.cache_clear()
    fonts._fonts_with.cache_clear()
    fonts._told.clear()


def drawn(tmp_path: Path, *names: str, suffix: str = "png") -> Figure:
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.set_title("plain")
    save(figure, tmp_path / f"picture.{suffix}")
    return figure


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_letters_come_from_an_installed_font(
    install: Callable[[str, str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    install("Some Chinese", CHINESE)
    install("Some Hindi", HINDI)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        figure = drawn(tmp_path, "class a", CHINESE, HINDI, suffix=suffix)
    families = [label.get_fontfamily() for label in figure.axes[0].get_yticklabels()]
    assert families == [["sans-serif"], ["sans-serif", "Some Chinese"], ["sans-serif", "Some Hindi"]]
    assert figure.axes[0].title.get_fontfamily() == ["sans-serif"]
    assert caplog.records == []


def test_the_letters_are_in_the_picture(install: Callable[[str, str], Path], tmp_path: Path) -> None:
    drawn(tmp_path, CHINESE)
    boxes = (tmp_path / "picture.png").read_bytes()
    install("Some Chinese", CHINESE)
    fonts._fonts_with.cache_clear()
    drawn(tmp_path, CHINESE)
    assert (tmp_path / "picture.png").read_bytes() != boxes


def test_what_no_font_has_is_told_once(
    install: Callable[[str, str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install("Some Chinese", CHINESE)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        for _ in range(2):
            drawn(tmp_path, CHINESE + CUNEIFORM, "é ü ß α я")
        drawn(tmp_path, CUNEIFORM)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith(f"no installed font has {' '.join(CUNEIFORM)}: ") and "Noto Sans" in line
    assert not set(CHINESE) & set(line)


def test_the_fewest_fonts_are_chosen_and_the_same_ones_again(install: Callable[[str, str], Path]) -> None:
    install("B half", CHINESE[0])
    install("A half", CHINESE[0])
    assert [name for name, _ in fonts._fonts_with(frozenset(CHINESE[0]))] == ["A half"]
    install("Z whole", CHINESE)
    assert [name for name, _ in fonts._fonts_with(frozenset(CHINESE))] == ["Z whole"]
    install("LastResort", CUNEIFORM)
    assert fonts._fonts_with(frozenset(CUNEIFORM)) == ()


def test_plain_names_look_at_no_font(install: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: str, letters: frozenset[str]) -> frozenset[str]:
        raise AssertionError(path)

    monkeypatch.setattr(fonts, "_letters_of", never)
    figure = Figure()
    figure.suptitle("fedit of tiny on pydoc\n(seed 0)")
    fonts.use_installed_fonts(figure)
