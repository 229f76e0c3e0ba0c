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
from fedlit.lab.report.published import load_published
from fedlit.lab.report.render import latex, markdown
from fedlit.lab.report.significance import compare_all
from fedlit.lab.report.table import table_of
from fedlit.lab.report.versions import comparable
from fedlit.process.storage import write_atomically


def write_report(
    collection: Collection, folder: Path, *, scores: Sequence[str] = (), which: str = "last", figures: bool = True
) -> str:
    """Write table.md, table.tex, table.csv, wilcoxon.csv and the figures; return the table in Markdown.

    Raises:
        UserError: a score that no run has.
    """
    layout = make_layout(collection, load_published(collection.name), scores)
    measures = measure_all(layout, which)
    warnings = departures(collection, CONFIG_DIR) if layout.published else []
    table = table_of(collection, layout, measures, which, warnings)
    comparisons = compare_all(layout, comparable(layout, measures))
    text = markdown(table, comparisons)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "table.md": text,
        "table.tex": latex(table, collection.name),
        "table.csv": table_csv(collection, layout),
        "wilcoxon.csv": comparisons_csv(comparisons),
    }.items():
        write_atomically(folder / name, content)
    if figures:
        draw_figures(collection, layout, which, folder)
    return text
