"""A table as Markdown and as LaTeX with booktabs."""

import re
from collections.abc import Sequence
from itertools import pairwise

from fedlit.lab.report.cells import Cell
from fedlit.lab.report.significance import MIN_PAIRS, Comparison
from fedlit.lab.report.table import Table
from fedlit.lines import printable

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "…": r"\ldots{}",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "‖": r"$\|$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}
WIDE = 8
"""Columns beyond which a LaTeX table is scaled to the width of the text."""


def markdown(table: Table, comparisons: Sequence[Comparison] = ()) -> str:
    """Return caption, table, notes and the tests; the best of ours is bold, published numbers are italic."""
    alignment = ["---"] * table.num_labels + ["---:"] * (len(table.heads) - table.num_labels)
    lines = [_escape_markdown(table.caption), "", _row([_escape_markdown(head) for head in table.heads])]
    lines += [_row(alignment), *(_row([_markdown_cell(cell) for cell in row]) for row in table.cells)]
    if table.notes:
        lines += ["", *(f"- {_markdown_note(note)}" for note in table.notes)]
    if comparisons:
        lines += ["", *_tests(comparisons)]
    return "\n".join(lines) + "\n"


def latex(table: Table, name: str) -> str:
    r"""Return a `table` environment, label `tab:<name>`; it needs booktabs and, if it is wide, graphicx."""
    num_numbers = len(table.heads) - table.num_labels
    packages = "booktabs, graphicx" if len(table.heads) > WIDE else "booktabs"
    body = [rf"\begin{{tabular}}{{{'l' * table.num_labels}{'r' * num_numbers}}}", r"\toprule"]
    body += [" & ".join(_escape_latex(head) for head in table.heads) + r" \\", r"\midrule"]
    for i, row in enumerate(table.cells):
        body += [r"\midrule"] if i in table.breaks else []
        body.append(" & ".join(_latex_cell(cell) for cell in row) + r" \\")
    body += [r"\bottomrule", r"\end{tabular}"]
    if len(table.heads) > WIDE:
        body = [r"\resizebox{\textwidth}{!}{%", *body[:-1], body[-1] + "}"]
    notes = [rf"\par {_latex_note(note)}" for note in table.notes]
    label = re.sub(r"[^A-Za-z0-9-]+", "-", name)
    return "\n".join(
        [
            rf"% \usepackage{{{packages}}}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_latex(table.caption)}}}",
            rf"\label{{tab:{label}}}",
            *body,
            r"\par\smallskip",
            r"\begin{minipage}{\textwidth}\footnotesize\raggedright",
            *notes,
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _tests(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a section about the tests, one sentence if there are too few pairs for any."""
    heads = ["score", "first", "second", "pairs", "median of first - second", "W", "p", "p, Holm"]
    largest = max(comparison.num_nonzero for comparison in comparisons)
    if largest < MIN_PAIRS:
        return [f"No Wilcoxon test: too few pairs ({largest}) of otherwise equal cells; it takes {MIN_PAIRS}."]
    lines = [
        "Wilcoxon's signed-rank test, two-sided, over otherwise equal cells, each the mean over the seeds that "
        f"both have. Differences of zero are left out; fewer than {MIN_PAIRS} others are no test.",
        "",
        _row(heads),
        _row(["---"] * 3 + ["---:"] * 5),
    ]
    for c in comparisons:
        zeros = c.num_pairs - c.num_nonzero
        numbers = [
            f"{c.num_pairs}" + (f" ({zeros} zero)" if zeros else ""),
            "–" if c.median is None else f"{c.median:.4g}",
            "–" if c.statistic is None else f"{c.statistic:g}",
            f"too few pairs ({c.num_nonzero})" if c.p is None else f"{c.p:.3g}",
            "–" if c.p_holm is None else f"{c.p_holm:.3g}",
        ]
        lines.append(_row([*(_escape_markdown(text) for text in (c.score, c.first, c.second)), *numbers]))
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = _escape_markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    text = f"*{text}*" if cell.published and cell.text != "–" else text
    return text + (f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else "")


def _markdown_note(note: str) -> str:
    mark, text = _split_mark(note)
    return f"<sup>{mark}</sup> {_escape_markdown(text)}" if mark else _escape_markdown(text)


def _escape_markdown(text: str) -> str:
    """Keep a text what it is inside a table: one line, no bar, no tag, no emphasis; an underscore in a word is none."""
    return re.sub(r"([\\|*`<\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", printable(" ".join(text.split())))


def _latex_cell(cell: Cell) -> str:
    text = _escape_latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    text = rf"\textit{{{text}}}" if cell.published and cell.text != "–" else text
    marks = ",".join(_escape_latex(mark) for mark in cell.marks)
    return text + (rf"\textsuperscript{{{marks}}}" if marks else "")


def _latex_note(note: str) -> str:
    mark, text = _split_mark(note)
    return (rf"\textsuperscript{{{_escape_latex(mark)}}} " if mark else "") + _escape_latex(text)


def _escape_latex(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in printable(" ".join(text.split())))
    quotes = escaped.split('"')  # straight quotes would all close
    return "".join(part + ("``" if i % 2 == 0 else "''") for i, (part, _) in enumerate(pairwise(quotes))) + quotes[-1]


def _split_mark(note: str) -> tuple[str, str]:
    """Return the mark of a footnote and its text; no mark for another note."""
    mark, colon, text = note.partition(": ")
    is_mark = bool(colon) and (len(mark) <= 2 and (mark.islower() or not mark.isascii())) and mark != "–"
    return (mark, text) if is_mark else ("", note)
