"""What all pictures share: colours, axes, legends, and a file that is whole or not there.

Figures are objects of their own: no pyplot, no state that outlives a call.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from fedlit.lab.analysis.fonts import MISSING_GLYPH, use_installed_fonts
from fedlit.lab.analysis.palette import GRID, INK, MUTED
from fedlit.process.storage import replacing
from fedlit.scores import SCORES, Score, number

_DPI = 150

Points = list[tuple[int, float]]


def score_look(name: str) -> Score:
    """Return how a score is called, with a capital, and in which unit it is; a part of it (`accuracy/boolq`) by both
    names.
    """
    base, _, part = name.partition("/")
    score = SCORES.get(base, Score(base, "score"))
    heading = f"{score.heading} {part}".strip()
    return Score(heading[:1].upper() + heading[1:], score.unit, score.lower_is_better)


def points_of(records: Sequence[Mapping[str, Any]], key: str) -> Points:
    """Return the finite values of one key by round, sorted by round."""
    values = ((int(record["round"]), number(record.get(key))) for record in records)
    return sorted({round_number: value for round_number, value in values if value is not None}.items())


def curve_places(records: Iterable[Mapping[str, Any]], score: str) -> tuple[str, ...]:
    """Return where curves of a score look for their points, in this order: on the test set, global or the clients' own;
    first of all on the validation set, where the test set was scored in some of the rounds only (`eval.test=chosen`).
    """
    on_test, on_validation = (f"global/{score}", f"own/{score}"), f"validation/{score}"
    untested = any(on_validation in record and not any(key in record for key in on_test) for record in records)
    return ("validation", "global", "own") if untested else ("global", "own")


def style(axes: Axes) -> None:
    """Give the axes the house's look: no frame, a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#B0B0B0")
    axes.tick_params(labelsize=8, colors=MUTED, length=3)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def add_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], *, loc: str, num_columns: int) -> Legend:
    """Put a legend outside the axes, its names as they are: a dollar sign begins no formula."""
    legend = figure.legend(
        handles, names, loc=loc, ncols=num_columns, frameon=False, fontsize=8, labelcolor=INK, handleheight=1.1
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def text_colour(background: str) -> str:
    """Return white or ink, whichever has the higher contrast of WCAG 2.1 on a colour."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(background))
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.21 else INK


def save(figure: Figure, path: Path, dpi: int = _DPI) -> None:
    """Write a PNG of `dpi` dots an inch, or a PDF if the path says so, beside its place and move it there, so that a
    reader never sees half a file. A PDF holds no date: equal pictures are equal files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    use_installed_fonts(figure)
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.filterwarnings("ignore", message=MISSING_GLYPH)  # told once, with a remedy
        if path.suffix == ".pdf":
            with rc_context({"pdf.fonttype": 42}):  # fonts as they are: journals refuse type 3
                FigureCanvasPdf(figure).print_figure(temporary, format="pdf", metadata={"CreationDate": None})
        else:
            FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=dpi, facecolor="white")
