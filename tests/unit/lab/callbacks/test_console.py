"""What a person reads: sizes with units, one line a round, a table that tells better from worse."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedlit.config import EvalConfig, LocalConfig, RunConfig
from fedlit.lab.analysis.palette import PALETTE
from fedlit.lab.callbacks import RunSummary
from fedlit.lab.callbacks.console import ConsoleReport, client_table, describe, round_line
from fedlit.units import readable_bytes

RECORDS: list[dict[str, Any]] = [
    {"round": 0, "eval/protocol": "generate", "global/loss": 5.0, "global/rouge_l": 0.1, "global/bleu_4": 0.01},
    {"round": 1, "eval/protocol": "generate", "global/loss": 3.0, "global/rouge_l": 0.3, "global/bleu_4": 0.02},
    {"round": 2, "client/0/train_loss": 2.0, "client/1/train_loss": 3.0},
    {"round": 3, "eval/protocol": "generate", "global/loss": 4.0, "global/rouge_l": 0.2, "global/bleu_4": 0.03},
]
NAMES = ("loss", "rouge_l", "bleu_4")
for record in RECORDS:
    record.update({"time/train_s": 1.0, "time/evaluate_s": 0.5})


@pytest.fixture
def summary() -> RunSummary:
    return RunSummary(
        config=RunConfig(local=LocalConfig(steps=7)),
        folder=Path("runs/mine"),
        device="cpu",
        num_processes=2,
        cohort_size=2,
        num_trainable=1500,
        num_shared=1000,
        num_private=500,
        uplink_bytes=4000,
        downlink_bytes=4000,
        num_frozen=1_000_000,
        num_train_examples=(40, 42, 41),
        num_test_examples=12,
        num_evaluated=9,
        num_truncated=3,
        classes=(),
    )


def report() -> tuple[ConsoleReport, io.StringIO]:
    stream = io.StringIO()
    return ConsoleReport(Console(file=stream, width=100), progress=True), stream


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_540_000, "2.5 MB"), (3e12, "3.0 TB")]
)
def test_bytes_have_decimal_units(num_bytes: float, text: str) -> None:
    assert readable_bytes(num_bytes) == text


def test_the_start_tells_all_sizes(summary: RunSummary) -> None:
    text = "\n".join(describe(summary))
    for part in (
        "3, 2 in a round",
        "5 rounds of 7 steps",
        "2 processes on cpu",
        "40 to 42 a client",
        "12 for testing",
        "9 evaluated (generate, 3 clients' models), 3 of them truncated",
        "1,500 trainable (1,000 shared, 500 private)",
        "1,000,000 frozen",
        "4.0 kB up",
        "runs/mine",
    ):
        assert part in text


def test_a_round_is_one_line() -> None:
    assert round_line(RECORDS[1], NAMES).startswith("round   1   loss 3.0000   ROUGE-L 0.3000   BLEU-4 0.0200")
    unevaluated = round_line(RECORDS[2], NAMES)
    assert "train loss 2.5000" in unevaluated
    assert "ROUGE-L" not in unevaluated


def test_what_the_start_lost_and_what_the_aggregate_missed_are_told(summary: RunSummary) -> None:
    callback, stream = report()
    callback.on_start(summary, [], [])
    callback.on_round_end({**RECORDS[0], "init/weight_error": 0.9923, "init/loss_after": 5.5}, [])
    assert "at the start: weight error 0.9923, loss after 5.5" in stream.getvalue()
    assert "deviation 2.5e-04" in round_line({**RECORDS[1], "lora/deviation": 0.00025}, NAMES)


def test_a_round_in_which_no_client_moved_says_so() -> None:
    """All of them, to the last bit: a rate or a norm so small that every step is rounded away."""
    still = {**RECORDS[1], "client/0/update_norm": 0.0, "client/1/update_norm": 0.0, "client/2/update_norm": 0.0}
    assert "NO UPDATE: every client sent what it received" in round_line(still, NAMES)
    assert "NO UPDATE" not in round_line({**still, "client/1/update_norm": 1e-30}, NAMES)
    assert "NO UPDATE" not in round_line({"round": 0, "time/evaluate_s": 1.0}, NAMES)


def test_lost_clients_are_told() -> None:
    assert "   2 LOST   " in round_line({**RECORDS[2], "clients/lost": [3, 4]}, NAMES)
    nobody = {"round": 1, "clients/lost": [0, 1, 2], "time/evaluate_s": 1.0}
    assert "NO UPDATE: all 3 clients were lost" in round_line(nobody, NAMES)
    assert "LOST" not in round_line(RECORDS[1], NAMES)


def test_the_table_knows_what_is_better(summary: RunSummary) -> None:
    callback, stream = report()
    callback.on_start(summary, [], ["resumed after round 1"])
    callback.on_end(RECORDS)
    rows = {line.split("│")[1].strip(): line for line in stream.getvalue().splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in rows["loss"].split("│")[2:6]] == ["5.0000", "4.0000", "3.0000", "1"]
    assert [cell.strip() for cell in rows["ROUGE-L"].split("│")[2:6]] == ["0.1000", "0.2000", "0.3000", "1"]
    assert [cell.strip() for cell in rows["BLEU-4"].split("│")[2:6]] == ["0.0100", "0.0300", "0.0300", "3"]
    assert "resumed after round 1" in stream.getvalue()


def test_a_classification_shows_its_own_scores(summary: RunSummary) -> None:
    """Of a run on the clients' own test parts: no protocol, the confusion matrix is not for a table."""
    callback, stream = report()
    config = RunConfig(num_rounds=5, eval=EvalConfig(on="clients", patience=2))
    config.data.task = "image_classification"
    callback.on_start(dataclasses.replace(summary, config=config), [], [])
    scores = {"own/loss": 1.0, "own/f1_macro": 0.5, "own/f1_macro_worst": 0.25, "own/mcc": 0.1, "time/evaluate_s": 1.0}
    records = [{"round": number, **scores, "own/confusion_matrix": [[1]]} for number in range(3)]
    callback.on_round_end(records[0], [])
    callback.on_end(records)
    text = stream.getvalue()
    assert "round   0   own loss 1.0000   own macro F1 0.5000   evaluate 1.0 s" in text
    rows = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert rows == ["own loss", "own macro F1", "worst macro F1", "own MCC"]
    assert "stopped  after round 2: no better score for eval.patience=2" in text


def test_names_do_nothing_to_the_terminal(summary: RunSummary) -> None:
    """Names of a run, of a note and of a group of rows, with what clears a screen and what rich takes for markup."""
    callback, stream = report()
    summary = dataclasses.replace(summary, folder=Path("runs/\x1b[2Ja"))
    callback.on_start(summary, [], ["note \x07\r[/red]"])
    records = [{**record, "global/accuracy/\x1b[31m[/b][red]": 0.5, "global/accuracy": 0.5} for record in RECORDS]
    callback.on_end(records)
    text = stream.getvalue()
    assert not {"\x1b", "\x07", "\r"} & set(text)
    assert "runs/\\x1b[2Ja" in text and "note \\x07\\r[/red]" in text and "\\x1b[31m[/b][red]" in text


def test_no_bar_where_there_is_no_terminal(summary: RunSummary) -> None:
    callback, stream = report()
    callback.on_start(summary, [], [])
    before = stream.getvalue()
    callback.on_round_start(1, 3)
    callback.on_step()
    callback.close()
    assert stream.getvalue() == before


def test_a_round_of_many_clients_tells_what_all_of_them_have() -> None:
    record = {"round": 1, "clients/train_loss": 2.5, "clients/update_norm": 0.25, "time/evaluate_s": 1.0}
    assert round_line(record, NAMES) == "round   1   train loss 2.5000   evaluate 1.0 s"
    assert "NO UPDATE" in round_line({**record, "clients/update_norm": 0.0}, NAMES)


VALIDATED = [
    {"round": 0, "global/loss": 5.0, "validation/loss": 5.0, "time/evaluate_s": 1.0},
    {"round": 1, "global/loss": 4.0, "validation/loss": 3.0, "time/evaluate_s": 1.0},
    {"round": 2, "validation/loss": 3.5, "time/evaluate_s": 1.0},
    {"round": 3, "global/loss": 2.0, "validation/loss": 4.0, "time/evaluate_s": 1.0},
]


def test_what_validation_chose_is_shown_with_its_test_scores_and_without_a_mark(summary: RunSummary) -> None:
    callback, stream = report()
    summary = dataclasses.replace(summary, num_validation_examples=12, num_validated=6)
    callback.on_start(summary, [], [])
    callback.on_round_end(VALIDATED[2], [])
    callback.on_end(VALIDATED)
    text = stream.getvalue()
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in rows["loss"].split("│")[2:6]] == ["5.0000", "2.0000", "4.0000", "1"]
    assert [cell.strip() for cell in rows["validation loss"].split("│")[2:6]] == ["5.0000", "4.0000", "3.0000", "1"]
    assert "chosen   by validation/loss" in text
    assert "round   2   validation loss 3.5000   evaluate" in text
    assert ", 12 for validation, 6 evaluated" in text
    assert "†" not in text


def test_what_is_chosen_on_the_test_set_is_marked(summary: RunSummary) -> None:
    callback, stream = report()
    callback.on_start(summary, [], [])
    callback.on_end(RECORDS)
    assert "best †" in stream.getvalue()
    assert "†: chosen on the test set, which flatters" in stream.getvalue()
    assert "validation" not in stream.getvalue()


def test_clients_with_names_are_told_with_their_rows_and_scores(summary: RunSummary) -> None:
    callback, stream = report()
    names = ("north", "[red]\x1b[2J", "north")
    callback.on_start(dataclasses.replace(summary, client_names=names), [], [])
    assert r"  of each    north (0) 40, [red]\x1b[2J 42, north (2) 41" in stream.getvalue()
    last = {**RECORDS[3], "client/0/own/loss": 1.5, "client/2/own/loss": 2.5, "client/0/rouge_l": 0.125}
    callback.on_end([*RECORDS[:3], last])
    text = stream.getvalue()
    assert "scores of each client after round 3" in text
    rows = {line.split("│")[1].strip(): line.split("│")[2:] for line in text.splitlines() if line.startswith("│")}
    assert r"[red]\x1b[2J" in rows, "no markup of rich"
    assert [cell.strip() for cell in rows["north (0)"]] == ["40", "1.5000", "0.1250", ""]
    assert [cell.strip() for cell in rows["north (2)"]] == ["41", "2.5000", "", ""]
    assert "\x1b" not in text


def test_many_names_are_not_all_told_and_none_is_no_line(summary: RunSummary) -> None:
    many = dataclasses.replace(
        summary, client_names=tuple(f"site {i}" for i in range(40)), num_train_examples=tuple(range(40))
    )
    (line,) = [line for line in describe(many) if "of each" in line]
    assert line.endswith("site 11 11, and 28 more (partition.json has all)")
    assert client_table({"round": 1, "client/0/own/loss": 1.0}, many) is None
    for none in ((), ("", "", ""), ("0", "1", "2")):
        without = dataclasses.replace(summary, client_names=none)
        assert not [line for line in describe(without) if "of each" in line]
        assert client_table({"round": 1, "client/0/own/loss": 1.0}, without) is None


def test_the_recipe_has_its_colour_on_a_terminal(summary: RunSummary) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="truecolor", width=200)
    ConsoleReport(console, progress=False).on_start(summary, [], [])
    red, green, blue = (int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5))
    assert stream.getvalue().startswith(f"\x1b[38;2;{red};{green};{blue}mfedit\x1b[0m of ")
