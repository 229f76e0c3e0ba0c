"""What the terminal shows of a sweep."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from fedlit.config import load_sweep
from fedlit.lab.sweeps.cells import CellRun
from fedlit.lab.sweeps.queue import BUSY
from fedlit.lab.sweeps.tables import FAILURES, cell_table, counts, duration, number_of, status_table, sweep_table
from fedlit.store.status import STATES


def lines(table: Table) -> list[str]:
    console = Console(file=io.StringIO(), width=400)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_line_for_each_cell_with_its_round_and_score(make_run: Callable[..., CellRun]) -> None:
    records = [{"round": i, "global/loss": 2.0, "global/rouge_l": i / 8, "global/bleu_4": 0.9} for i in range(3)]
    runs = [
        make_run(0, "running", [*records, {"round": 3, "global/loss": 1.0}], num_rounds=9, updated_s=1000.0, job="7_0"),
        make_run(1, "out_of_memory", reason="[bold] brackets stay", num_rounds=9),
        make_run(2),
    ]
    heads, first, second, third = lines(status_table(runs, now_s=1180.0))
    assert heads.split() == ["index", "cell", "state", "round", "ROUGE-L", "updated", "job", "why"]
    assert first.split() == ["0", "cell0", "running", "3", "of", "9", "0.2500", "3", "min", "ago", "7_0"]
    assert second.split()[:6] == ["1", "cell1", "out_of_memory", "0", "of", "9"]
    assert "[bold] brackets stay" in second
    assert third.split() == ["2", "cell2", "pending", "–", "–", "–"]


def test_private_methods_show_their_clients_mean(make_run: Callable[..., CellRun]) -> None:
    run = make_run(0, "done", [{"round": i, "own/rouge_l": 0.5} for i in range(2)])
    run.cell.arguments.append("eval.on=clients")
    heads, line = lines(status_table([run], 0.0))
    assert "ROUGE-L" in heads
    assert "0.5000" in line


def test_the_loss_counts_where_no_score_is_computed(make_run: Callable[..., CellRun]) -> None:
    """As it decides on the best round of such a run."""
    unscored = make_run(1, "done", [{"round": i, "global/loss": 0.5} for i in range(2)])
    heads, line = lines(status_table([unscored], 0.0))
    assert "loss" in heads
    assert "0.5000" in line
    unscored.cell.arguments.append("eval.score=rouge_l")
    assert "0.5" not in lines(status_table([unscored], 0.0))[1]


def test_damaged_records_do_not_hide_the_other_cells(make_run: Callable[..., CellRun]) -> None:
    damaged = make_run(0, "done", [{"round": i, "global/rouge_l": 0.25} for i in range(2)])
    with (damaged.cell.folder / "metrics.jsonl").open("a") as file:
        file.write("[]\n")
    whole = make_run(1, "done", [{"round": i, "global/rouge_l": 0.5} for i in range(2)])
    _, first, second = lines(status_table([damaged, whole], 0.0))
    assert "0.25" not in first
    assert "0.5000" in second


def test_a_line_that_is_being_written_does_not_matter(make_run: Callable[..., CellRun]) -> None:
    run = make_run(0, "running", [{"round": i, "global/rouge_l": 0.5} for i in range(2)])
    with (run.cell.folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "global/rouge')
    assert "0.5000" in lines(status_table([run], 0.0))[1]


def test_cells_with_what_varies(make_run: Callable[..., CellRun]) -> None:
    cells = load_sweep("scl_table2").cells(["num_clients=3"])
    shown = lines(cell_table(cells))
    assert len(shown) == 1 + len(cells) == 13
    assert all(cell.name in line for cell, line in zip(cells, shown[1:], strict=True))
    assert "num_clients" not in shown[1].replace(cells[0].name, ""), "what is the same everywhere"
    assert "data=medquad" in shown[1]
    assert "…" in shown[1], "the long template is cut"


def test_sweeps_with_their_number_of_cells() -> None:
    (_, line) = lines(sweep_table([load_sweep("fedex_glue")]))
    assert line.split()[:3] == ["fedex_glue", "504", "FedEx-LoRA,"]


def test_every_state_is_counted() -> None:
    states = [*STATES, *BUSY, "done"]
    shown = counts(states)
    assert sum(int(part.split()[0]) for part in shown.split(", ")) == len(states)
    assert shown.startswith("3 done, 2 running")
    assert {"killed", "failed", "diverged", "out_of_memory", "timed_out"} == FAILURES
    assert (number_of([1]), number_of([])) == ("1 cell", "0 cells")


@pytest.mark.parametrize(
    ("length_s", "text"), [(0, "0 s"), (-3, "0 s"), (99, "99 s"), (180, "3 min"), (7200, "2 h"), (864_000, "10 d")]
)
def test_lengths_of_time(length_s: float, text: str) -> None:
    assert duration(length_s) == text


def test_names_and_reasons_do_nothing_to_the_terminal(make_run: Callable[..., CellRun]) -> None:
    run = make_run(0, "failed", reason="\x1b[2J[/red]", job="7\x07")
    named = replace(run, cell=replace(run.cell, name="a\x1b]0;t\x07"))
    (_, line) = lines(status_table([named], 0.0))
    assert not {"\x1b", "\x07"} & set(line)
    assert "\\x1b[2J[/red]" in line and "a\\x1b]0;t\\x07" in line
