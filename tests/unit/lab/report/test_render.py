"""Markdown and LaTeX hold the table whatever stands in it, and the CSV gives the values back."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import Cell, measure_all
from fedlit.lab.report.files import comparisons_csv, table_csv
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.published import load_published
from fedlit.lab.report.render import latex, markdown
from fedlit.lab.report.significance import compare_all
from fedlit.lab.report.table import Table, table_of

AWKWARD = st.text(st.sampled_from(list("ab_%$#&{}~^\\|<>*`[]\"'±–†↑ \n")), max_size=12)


def table(text: str) -> Table:
    cells = ((Cell(text), Cell("0.1 ± 0.2", ("a",), best=True)), (Cell("x"), Cell("0.3", ("†",), published=True)))
    return Table(caption=text, heads=(text, "n"), num_labels=1, cells=cells, breaks=(1,), notes=(f"a: {text}", text))


COMMANDS = set(
    re.findall(
        r"\w+",
        """begin end centering caption label toprule midrule bottomrule textbf textit textsuperscript par smallskip
        footnotesize raggedright textwidth textbackslash textasciitilde textasciicircum textless textgreater textbar
        pm dag uparrow""",
    )
)
"""Commands of LaTeX that a table may hold."""


@given(AWKWARD)
def test_a_markdown_row_has_one_cell_for_each_head(text: str) -> None:
    lines = [line for line in markdown(table(text)).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {3}
    assert "<" not in re.sub(r"</?sup>", "", "".join(lines)).replace(r"\<", "")


@given(AWKWARD)
def test_latex_has_no_character_that_latex_would_read(text: str) -> None:
    """Without comments and known commands nothing is left that means something, and braces and formulas are closed."""
    source = latex(table(text), "a name_with $ signs")
    body = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
    assert body.count(r"\begin{") == body.count(r"\end{")
    plain = re.sub(r"\\[\\%$#&_{}]", "", body)  # escaped characters and line ends
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert plain.count("$") % 2 == 0
    assert not re.search(r"[%#~^<>|\"]", re.sub(r"\$[^$]*\$", "", plain))
    assert "_" not in plain
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {1}
    commands = set(re.findall(r"\\([A-Za-z]+)", plain))
    assert commands <= COMMANDS


def test_a_wide_table_is_scaled_to_the_text() -> None:
    wide = Table(caption="c", heads=("a",) * 9, num_labels=1, cells=((Cell("1"),) * 9,), breaks=(), notes=())
    assert r"\resizebox{\textwidth}{!}{%" in latex(wide, "t")
    assert "graphicx" in latex(wide, "t").splitlines()[0]


def test_best_is_bold_and_published_is_italic() -> None:
    assert "| **0.1 ± 0.2**<sup>a</sup> |" in markdown(table("x"))
    assert "| *0.3*<sup>†</sup> |" in markdown(table("x"))
    assert r"\textbf{0.1 $\pm$ 0.2}\textsuperscript{a} \\" in latex(table("x"), "t")
    assert r"\textit{0.3}\textsuperscript{\dag{}} \\" in latex(table("x"), "t")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def by_seed(text: str) -> dict[str, float]:
    return {seed: float(value) for seed, value in (pair.split("=") for pair in text.split())}


def test_the_csv_holds_every_seed_in_the_unit_of_the_record(make_sweep: Callable[..., Collection]) -> None:
    values = {0: 0.123456789012345, 1: 0.25, 2: 0.5}

    def scorer(s: Mapping[str, Any], number: int) -> dict[str, float] | None:
        if s["method"] == "ffa_lora":
            return None
        return {"global/mcc": values[s["seed"]] * (1.5 if number == 2 else 1.0), "global/loss": 1.0}

    collection = make_sweep("fedex_rank", scorer, ["method.lora_rank=[1, 2]"])
    layout = make_layout(collection, load_published("fedex_rank"), [])
    rows = {(r["method"], r["method.lora_rank"], r["score"]): r for r in rows_of(table_csv(collection, layout))}
    fedit = rows["fedit", "1", "mcc"]
    assert by_seed(fedit["last_by_seed"]) == {str(seed): value for seed, value in values.items()}
    assert float(fedit["last_mean"]) == pytest.approx(sum(values.values()) / 3)
    assert (fedit["num_runs"], fedit["num_done"], fedit["complete"], fedit["key"]) == ("3", "3", "True", "global/mcc")
    assert (fedit["published"], fedit["published_as_printed"]) == ("0.6005", "60.05")
    assert "10 local epochs" in fedit["published_doubts"]
    assert rows["fedit", "1", "loss"]["published"] == ""
    missing = rows["ffa_lora", "2", "mcc"]
    assert (missing["last_mean"], missing["num_done"], missing["published_as_printed"]) == ("", "0", "57.78")
    assert ("ffa_lora", "2", "loss") not in rows


def test_both_rounds_are_in_the_csv(make_collection: Callable[..., Collection]) -> None:
    cells = [{"method": m, "seed": seed} for m in ("a", "b") for seed in (0, 1)]
    collection = make_collection(cells, lambda s, number: {"global/rouge_l": [0, 0.1, 0.3, 0.2][number] + s["seed"]})
    layout = make_layout(collection, None, [])
    first = rows_of(table_csv(collection, layout))[0]
    assert (by_seed(first["last_by_seed"]), by_seed(first["best_by_seed"])) == (
        {"0": 0.2, "1": 1.2},
        {"0": 0.3, "1": 1.3},
    )
    assert (first["last_round_by_seed"], first["best_round_by_seed"]) == ("0=3 1=3", "0=2 1=2")
    assert first["best_by"] == "global/rouge_l"
    measures = measure_all(layout, "last")
    comparisons = compare_all(layout, measures)
    assert [(r["first"], r["second"], r["num_pairs"], r["p"]) for r in rows_of(comparisons_csv(comparisons))][:1] == [
        ("a", "b", "1", "")
    ]
    text = markdown(table_of(collection, layout, measures, "last"), comparisons)
    assert "No Wilcoxon test: too few pairs (0)" in text
