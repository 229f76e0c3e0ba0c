"""What analyses leave: one folder with every picture as PDF and PNG, every table as CSV, and one text of all."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fedlit.errors import UserError
from fedlit.lab.analyses.base import Analysis, Findings, Run, Table
from fedlit.lab.analysis.column import draw
from fedlit.lab.analysis.csv_text import csv_text
from fedlit.lines import one_line
from fedlit.process.storage import write_atomically

TEXT = "analyses.md"
MOST_LINES = 30
"""Of a table in the text; the file has all."""


def require_new(folder: Path) -> None:
    """Raise a UserError if a folder holds anything: nothing is overwritten."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another folder with --out")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty, and nothing is overwritten; give a new folder with --out")


def write_analyses(
    analyses: Sequence[Analysis], runs: Sequence[Run], folder: Path, name: str, tell: Callable[[str], None]
) -> int:
    """Make what can be made of the runs, write it, and return how many analyses there were of it.

    Args:
        analyses: to make.
        runs: at least one.
        folder: does not exist, or is empty.
        name: of the runs together, in the heading.
        tell: gets a line of each analysis that cannot be made, with the remedy.

    Raises:
        UserError: the folder is not empty.
    """
    require_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# Analyses of {_inline(name)}", "", *_of_runs(runs), ""]
    left_out, made = [], 0
    for analysis in analyses:
        reason = analysis.missing(runs)
        if not reason:
            try:
                findings = analysis.findings([run for run in runs if analysis.fits(run)])
            except UserError as error:
                reason = str(error)
        if reason:
            left_out.append(f"- {analysis.title} (`{analysis.name}`): {_inline(reason)}")
            tell(f"{analysis.name}: {reason}")
            continue
        parts += _section(analysis, findings, runs, folder)
        made += 1
    if left_out:
        parts += ["## What could not be made", "", *left_out, ""]
    write_atomically(folder / TEXT, "\n".join(parts))
    return made


def _of_runs(runs: Sequence[Run]) -> Iterator[str]:
    yield "| setting | run | method | rounds | clients |"
    yield "|---|---|---|---:|---:|"
    for run in runs:
        rounds = len(run.rounds)
        cells = [_inline(run.label), _inline(run.name), f"`{run.method}`", str(rounds), str(run.config.num_clients)]
        yield f"| {' | '.join(cells)} |"


def _section(analysis: Analysis, findings: Findings, runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """Write the files of an analysis and yield the lines of its section."""
    yield from (f"## {analysis.title}", "", f"{analysis.source}.", "")
    if others := [run.label for run in runs if not analysis.fits(run)]:
        yield from (f"Not of {_inline(', '.join(dict.fromkeys(others)))}: {analysis.remedy}.", "")
    for note in findings.notes:
        yield from (_inline(note), "")
    for picture in findings.pictures:
        draw(picture, folder)
        yield from (f"![{picture.name}]({picture.name}.png)", "", f"{picture.caption} [PDF]({picture.name}.pdf)", "")
    for table in findings.tables:
        if table.rows:
            write_atomically(folder / f"{table.name}.csv", csv_text(table.rows, table.columns))
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield from (f"{table.caption} [CSV]({table.name}.csv)", "")
    if len(table.rows) > MOST_LINES:
        return
    pairs = {(row.get("setting"), row.get("run")) for row in table.rows}
    single = len({setting for setting, _ in pairs}) == len(pairs)  # the first table says which run a setting is
    left_out = {*table.only_in_file, *(["run"] if single else [])}
    columns = [column for column in table.columns if column not in left_out]
    numeric = [all(isinstance(row.get(column), int | float | None) for row in table.rows) for column in columns]
    yield f"| {' | '.join(map(_inline, columns))} |"
    yield f"|{'|'.join('---:' if is_number else '---' for is_number in numeric)}|"
    for row in table.rows:
        yield f"| {' | '.join(_cell(row.get(column)) for column in columns)} |"
    yield ""


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.5g}" if abs(value) >= 10 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else _inline(str(value))


def _inline(text: str) -> str:
    """Return a text that stays in its line and its cell, and begins no markup."""
    return one_line(text).replace("|", r"\|").replace("<", "&lt;")
