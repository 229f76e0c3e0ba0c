"""The published numbers are those of the papers, each belongs to one cell of its sweep, and no cell is forgotten."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedlit.config import CONFIG_DIR, load_sweep
from fedlit.lab.report.published import Published, load_published, matches

SWEEPS = sorted(path.stem for path in (CONFIG_DIR / "published").glob("*.yaml"))


def published(sweep: str) -> Published:
    found = load_published(sweep)
    assert found is not None
    return found


def settings_of(sweep: str) -> list[dict[str, Any]]:
    """Return the cells without their seeds."""
    cells = [{k: v for k, v in cell.settings.items() if k != "seed"} for cell in load_sweep(sweep).cells()]
    return [settings for i, settings in enumerate(cells) if settings not in cells[:i]]


def test_every_sweep_of_a_paper_has_its_numbers() -> None:
    experiments = {path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")}
    assert set(SWEEPS) == {name for name in experiments if name.startswith(("scl_", "fedftg_", "fedex_"))}


def test_a_sweep_without_published_numbers_has_none() -> None:
    assert load_published("demo") is None


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_number_belongs_to_one_cell_and_every_cell_has_its_place(sweep: str) -> None:
    table, cells = published(sweep), settings_of(sweep)
    num_places = [0] * len(cells)
    for row in table.rows:
        for column in table.columns:
            found = [i for i, cell in enumerate(cells) if matches({**row.settings, **column.settings}, cell)]
            assert len(found) == 1, (row.settings, column.heading)
            num_places[found[0]] += 1
    columns_of_one_run = [column for column in table.columns if not column.settings] or table.columns[:1]
    assert set(num_places) == {len(columns_of_one_run)}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_what_names_a_row_tells_it_from_the_others(sweep: str) -> None:
    table = published(sweep)
    labels = [tuple(label.of(row.settings) for label in table.rows_by) for row in table.rows]
    assert len(set(labels)) == len(labels)
    assert all(all(label) for label in labels)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_doubt_is_about_a_number(sweep: str) -> None:
    table = published(sweep)
    for doubt in table.doubts:
        told = [doubt.note in table.doubts_of(row, column) for row in table.rows for column in table.columns]
        assert 0 < sum(told) < len(told)


@pytest.mark.parametrize("sweep", ["fedex_commonsense", "fedex_glue", "fedex_assignment"])
def test_printed_averages_are_the_means_of_their_rows(sweep: str) -> None:
    """Which tells too that no row stands below another's label."""
    for row in published(sweep).rows:
        values = [float(value) for value in row.values if value is not None]
        assert row.average is not None
        assert float(row.average) == pytest.approx(sum(values) / len(values), abs=0.02), row.settings


def numbers(sweep: str) -> list[float]:
    return [float(value) for row in published(sweep).rows for value in row.values if value is not None]


def printed(text: str, begins: str, ends: str) -> list[float]:
    """Return the numbers with a decimal point of the part of a paper between two texts."""
    start = text.index(begins)
    return [float(number) for number in re.findall(r"\d\.\d+", text[start : text.index(ends, start)])]


@pytest.fixture(scope="session")
def paper(shared_folder: Path) -> Callable[[str], str]:
    def read(name: str) -> str:
        return (shared_folder / "papers" / name).read_text(encoding="utf-8")

    return read


@pytest.mark.parametrize(
    ("sweep", "name", "begins", "ends"),
    [
        ("scl_table1", "scl_2412.07021.txt", "No of clients\tMethod", "Table 1: Comparison"),
        ("scl_table2", "scl_2412.07021.txt", "$N$\tDataset", "Table 2: Comparison"),
        ("fedftg_table1", "fedftg_2410.23111.txt", "N\tDataset\tModel", "Table 1: Comparison"),
        ("fedftg_table2", "fedftg_2410.23111.txt", "No of clients\tMethod", "Table 2: Comparison"),
        ("fedftg_table3", "fedftg_2410.23111.txt", "No of Clients\tDataset", "Table 3: Comparison"),
        ("fedftg_table4", "fedftg_2410.23111.txt", "(see fig. 1(c) and 1(d))", "Table 4: Comparison"),
    ],
)
def test_numbers_are_those_of_the_paper_in_its_order(
    sweep: str, name: str, begins: str, ends: str, paper: Callable[[str], str]
) -> None:
    assert numbers(sweep) == printed(paper(name), begins, ends)


@pytest.mark.parametrize(
    ("sweep", "rows"),
    [
        ("scl_table1", ["0.481", "0.475", "0.0165", "0.577", "0.315", "0.3175", "0.516", "0.320", "0.1104"]),
        ("fedftg_table2", ["0.6064", "0.5638", "0.0165", "0.843", "0.4868", "0.3175", "0.7274", "0.6116", "0.1104"]),
    ],
)
def test_numbers_keep_the_decimals_of_the_paper(sweep: str, rows: list[str]) -> None:
    assert [row.values[0] for row in published(sweep).rows] == rows


def test_copied_rows_are_copies_and_doubted() -> None:
    """SCL repeats FedFTG's rows of FFA-LoRA, and both have one of them twice."""
    scl, fedftg = ({str(row.settings): row for row in published(name).rows} for name in ("scl_table2", "fedftg_table1"))
    copies = [key for key in scl if "ffa_lora" in key and key in fedftg and None not in fedftg[key].values]
    assert len(copies) == 4
    assert all(scl[key].values == fedftg[key].values for key in copies)
    for table in (published("scl_table2"), published("fedftg_table1")):
        gemma = {"num_clients": 3, "model": "gemma-2b", "method": "ffa_lora"}
        medquad, dolly = (row for row in table.rows if matches(gemma, row.settings))
        assert medquad.values == dolly.values
        assert len(table.doubts_of(dolly, None)) == 1 + len(table.doubts_of(medquad, None))


def test_the_same_cell_in_two_tables_has_one_number_or_a_doubt() -> None:
    """FedEx-LoRA's tables 3, 5 and 9 share cells of RoBERTa-base with 3 local epochs."""
    glue, rank, assignment = published("fedex_glue"), published("fedex_rank"), published("fedex_assignment")
    by_rank = {
        (row.settings["method"], row.settings["method.lora_rank"]): row
        for row in glue.rows
        if matches({"model": "roberta-base", "local.epochs": 3}, row.settings)
    }
    num_differing = 0
    for row in rank.rows:
        for column, value in zip(rank.columns, row.values, strict=True):
            other = by_rank.get((row.settings["method"], column.settings["method.lora_rank"]))
            if other is not None and other.values[0] != value:
                num_differing += 1
                assert any(str(other.values[0]) in doubt for doubt in rank.doubts_of(row, column))
    assert num_differing == 2
    assert assignment.rows[-1].values == by_rank["fedex_lora", 4].values


def test_accuracies_of_mrpc_are_shares_of_its_rows_save_those_in_doubt() -> None:
    """Of a mean of three runs on 408 rows; F1 is no such share."""
    glue = published("fedex_glue")
    column = next(column for column in glue.columns if column.heading == "MRPC")
    j = glue.columns.index(column)
    for row in glue.rows:
        if matches({"model": "roberta-large", "local.epochs": 10}, row.settings):
            num_right = float(row.values[j] or 0) / 100 * 408
            assert num_right == pytest.approx(round(num_right), abs=0.021)
            assert glue.doubts_of(row, column)
