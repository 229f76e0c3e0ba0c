"""A run of more clients than a record has room for: the same files for one process and two, killed or not."""

import json
from pathlib import Path

import pytest
from conftest import SMALL, CommandLine, merge

from fedlit.store.clients import NAME, read_clients

MANY = merge(
    SMALL,
    (
        *("method=fedsa_lora", "num_clients=101", "cohort_size=3", "num_rounds=2", "eval.max_clients=4"),
        *("partition.name=iid", "partition.min_test_rows=1", "partition.test_fraction=0", "eval.max_examples=2"),
        *("local.steps=1", "eval.on=both", "eval.max_new_tokens=2", "run.result=last", "analysis=[]"),
    ),
)


def table(folder: Path) -> list[str]:
    return (folder / NAME).read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_many_clients(command_line: CommandLine) -> None:
    one, two, longer = "one", "two", "longer"
    for name, num_processes, more in ((one, 1, ()), (two, 2, ()), (longer, 1, ("num_rounds=1",))):
        done = command_line.run(name, *merge(MANY, more), num_processes=num_processes)
        assert done.returncode == 0, done.stderr
    done = command_line.run(longer, *MANY)
    assert done.returncode == 0, done.stderr
    whole = command_line.folder / one
    records = [json.loads(line) for line in (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert not [key for record in records for key in record if key.startswith("client/")]
    assert all(len(record) < 100 for record in records)
    lines = read_clients(whole)
    scored = [{line["client"] for line in lines if line["round"] == number and "loss" in line} for number in range(3)]
    assert [len(clients) for clients in scored] == [4, 4, 4] and scored[0] == scored[1] == scored[2]
    assert scored[0] == {line["client"] for line in lines if "own/loss" in line}
    trained = [line["client"] for line in lines if "train_loss" in line]
    assert len(trained) == 6
    losses = [line["loss"] for line in lines if line["round"] == 2 and "loss" in line]
    assert records[2]["clients/loss"] == pytest.approx(sum(losses) / 4) == pytest.approx(records[2]["global/loss"])
    for other in (two, longer):
        assert table(command_line.folder / other) == table(whole)
        assert command_line.result(other) == command_line.result(one)
