"""All files of a report, in one folder."""

from collections.abc import Sequence
from pathlib import Path

from fedlit.config import CONFIG_DIR
from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import measure_all
from fedlit.lab.report.departures import departures
from fedlit.lab.report.figures import draw_figures
from fedlit.lab.report.files import comparisons_csv, table_csv
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.over_draws.claims import claims_of
from fedlit.lab.report.over_draws.figures import draw_statistics
from fedlit.lab.report.over_draws.files import differences_csv, examples_csv, shares_csv
from fedlit.lab.report.over_draws.sections import sections_of, silence
from fedlit.lab.report.published import load_published
from fedlit.lab.report.render import latex, markdown
from fedlit.lab.report.significance import compare_all
from fedlit.lab.report.table import Table, table_of
from fedlit.lab.report.versions import comparable
from fedlit.process.storage import write_atomically


def write_report(
    collection: Collection,
    folder: Path,
    *,
    scores: Sequence[str] = (),
    which: str = "last",
    reference: str = "",
    figures: bool = True,
) -> str:
    """Write the table, its tests and statistics as Markdown, LaTeX and CSV, and the figures; return the Markdown.

    reference: the method that all are compared with beside the best, as the table calls it; empty for fedit.

    Raises:
        UserError: a score that no run has, or no such method.
    """
    layout = make_layout(collection, load_published(collection.name), scores)
    measures = measure_all(layout, which)
    warnings = departures(collection, CONFIG_DIR) if layout.published else []
    table = table_of(collection, layout, measures, which, warnings)
    compared = comparable(layout, measures)
    comparisons = compare_all(layout, compared)
    claims = claims_of(layout, compared, reference)
    sections = sections_of(claims)
    text = "\n".join([markdown(table, comparisons), *_texts(sections, silence(claims))])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "table.md": text,
        "table.tex": latex(table, collection.name),
        "table.csv": table_csv(collection, layout),
        "wilcoxon.csv": comparisons_csv(comparisons),
        "differences.csv": differences_csv(claims),
        "shares.csv": shares_csv(claims),
        "examples.csv": examples_csv(claims),
        "statistics.tex": "\n".join(latex(found, f"{collection.name} {name}") for name, found in sections),
    }.items():
        write_atomically(folder / name, content)
    if figures:
        draw_figures(collection, layout, which, folder)
        draw_statistics(claims, collection.name, folder)
    return text


def _texts(sections: Sequence[tuple[str, Table]], silent: str) -> list[str]:
    """Return the sections in Markdown, or the sentence that stands for them."""
    return [*([f"{silent}\n"] if silent else []), *(f"## {name}\n\n{markdown(found)}" for name, found in sections)]
