"""The result does not depend on the launcher or its number of processes; test_every_recipe has the other methods."""

import json

import pytest
from conftest import CommandLine


@pytest.fixture(scope="module")
def whole(module_command_line: CommandLine) -> str:
    """Run FedIT once in one process and return the run's name."""
    done = module_command_line.run("fedit")
    assert done.returncode == 0, done.stderr
    return "fedit"


@pytest.mark.parametrize(
    ("launcher", "num_processes"),
    [
        ("fabric", 2),
        pytest.param("torchrun", 4, marks=pytest.mark.slow),
        pytest.param("python", 2, marks=pytest.mark.slow),
    ],
)
def test_processes_and_launchers_give_the_same_bits(
    module_command_line: CommandLine, whole: str, launcher: str, num_processes: int
) -> None:
    """With 4 processes and 3 clients, one process has no client."""
    name = f"{launcher}-{num_processes}"
    done = module_command_line.run(name, launcher=launcher, num_processes=num_processes)
    assert done.returncode == 0, done.stderr
    assert module_command_line.result(name) == module_command_line.result(whole)


@pytest.mark.slow
def test_another_seed_gives_other_bits(module_command_line: CommandLine, whole: str) -> None:
    done = module_command_line.run("other-seed", "seed=1")
    assert done.returncode == 0, done.stderr
    assert module_command_line.result("other-seed") != module_command_line.result(whole)


def test_the_record_has_its_keys(module_command_line: CommandLine, whole: str) -> None:
    lines = (module_command_line.folder / whole / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    for record in records:
        assert {"global/loss", "global/rouge_l", "global/bleu_4", "eval/protocol", "time/evaluate_s"} <= record.keys()
    for record in records[1:]:
        assert {f"client/{client_id}/train_loss" for client_id in range(3)} <= record.keys()
        assert record["communication/uplink_bytes"] == 3 * 4 * 25_600
        assert record["communication/downlink_bytes"] == 3 * 4 * 25_600
        assert record["aggregation/update_norm"] > 0
    folder = module_command_line.folder / whole
    for path in (
        "config.yaml",
        "environment.json",
        "partition.json",
        "plots/curves.png",
        "plots/label_distribution.png",
    ):
        assert (folder / path).stat().st_size > 0, path
