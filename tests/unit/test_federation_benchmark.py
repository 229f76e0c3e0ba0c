"""The benchmark of a whole federation: both sides get the same tokens, and what is told of their turns is right."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import federation  # noqa: PLC0415

    return federation


def test_every_row_has_its_tokens_and_its_labels(benchmark: ModuleType, tmp_path: Path) -> None:
    shape = benchmark.QUICK
    tokenizer = benchmark.write_model(tmp_path / "model", shape)
    benchmark.write_rows(tmp_path, shape, tokenizer)
    clients = json.loads((tmp_path / "clients.json").read_text())
    assert [len(rows) for rows in clients] == [shape.rows] * shape.clients
    for ids, labels in (row for rows in clients for row in rows):
        assert len(ids) == len(labels) == shape.num_tokens
        labelled = [label for label in labels if label != -100]
        assert labelled == ids[-len(labelled) :]
        assert len(labelled) == round(0.3 * shape.num_tokens)
        assert ids[-1] == tokenizer.eos_token_id
    texts = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(texts) == shape.clients * shape.rows
    assert len({text["client"] for text in texts}) == shape.clients


def test_a_ratio_is_of_pairs_and_pieces_are_shares_of_the_whole(benchmark: ModuleType) -> None:
    def turns(*cpu_s: float) -> list[object]:
        return [benchmark.Elapsed(cpu_s=seconds, wall_s=2 * seconds) for seconds in cpu_s]

    pairs = {"bare": turns(1.0, 2.0, 4.0), "null": turns(1.0, 2.0, 4.0), "fedlit": turns(0.5, 1.8, 4.0)}
    line = benchmark.ratio_line("a", pairs, "fedlit", "told", 0.8)
    assert (line.value, line.null, line.interval, line.verdict) == (0.9, 1.0, None, "missed")
    assert line.note == "1.800 over 2.000 s of CPU a round; by the clock 0.90; told"
    assert benchmark.shares([{"steps": 1.0}, {"steps": 1.0, "record": 0.5}], turns(2.0, 2.0)) == (
        "of it record 12.5 %, steps 50.0 %"
    )


def test_a_side_whose_process_ends_is_told_with_the_end_of_its_log(benchmark: ModuleType, tmp_path: Path) -> None:
    from turns import Side, SideFailed  # noqa: PLC0415  on the path of the fixture

    side = Side(["-c", "raise SystemExit('no such thing')"], 1, tmp_path / "log")
    with pytest.raises(SideFailed, match="no such thing"):
        side.turn()


@pytest.mark.slow
def test_it_runs_and_both_sides_do_the_same_work(tmp_path: Path) -> None:
    out = tmp_path / "lines.json"
    environ = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / "federation.py"), "--quick", "--json", str(out)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr  # what it asserts of the sides is told there
    lines = json.loads(out.read_text())["lines"]
    assert [line["target"] for line in lines if line["target"] is not None][:2] == [1.0, 0.8]
