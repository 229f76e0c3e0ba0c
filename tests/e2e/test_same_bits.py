"""The result does not depend on the number of processes, the launcher, or where clients run."""

import json

import pytest
from conftest import CommandLine

METHODS = {
    "fedit": ["method=fedit"],
    # Private tensors, kept optimizers and a cohort smaller than the population: the most state a run can have.
    "fedsa": ["method=fedsa_lora", "local.optimizer_state=keep", "cohort_size=2"],
}


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest, module_command_line: CommandLine) -> str:
    """Run the method once in one process and return its name."""
    done = module_command_line.run(request.param, *METHODS[request.param])
    assert done.returncode == 0, done.stderr
    return str(request.param)


@pytest.mark.parametrize(("launcher", "num_processes"), [("fabric", 2), ("torchrun", 4), ("python", 2)])
def test_processes_and_launchers_give_the_same_bits(
    module_command_line: CommandLine, method: str, launcher: str, num_processes: int
) -> None:
    """With 4 processes and 3 clients (2 in a round), one process or two have no client."""
    name = f"{method}-{launcher}-{num_processes}"
    done = module_command_line.run(name, *METHODS[method], launcher=launcher, num_processes=num_processes)
    assert done.returncode == 0, done.stderr
    assert module_command_line.result(name) == module_command_line.result(method)


def test_another_seed_gives_other_bits(module_command_line: CommandLine, method: str) -> None:
    if method != "fedit":
        pytest.skip("one method is enough")
    done = module_command_line.run("other-seed", *METHODS[method], "seed=1")
    assert done.returncode == 0, done.stderr
    assert module_command_line.result("other-seed") != module_command_line.result(method)


def test_the_record_has_its_keys(module_command_line: CommandLine, method: str) -> None:
    if method != "fedit":
        pytest.skip("fedit has every client in every round")
    lines = (module_command_line.folder / method / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    for record in records:
        assert {"global/loss", "global/rouge_l", "global/bleu_4", "eval/protocol", "time/evaluate_s"} <= record.keys()
    for record in records[1:]:
        assert {f"client/{client_id}/train_loss" for client_id in range(3)} <= record.keys()
        assert record["communication/uplink_bytes"] == 3 * 4 * 25_600
        assert record["communication/downlink_bytes"] == 3 * 4 * 25_600
        assert record["aggregation/update_norm"] > 0
    folder = module_command_line.folder / method
    for path in (
        "config.yaml",
        "environment.json",
        "partition.json",
        "plots/curves.png",
        "plots/label_distribution.png",
    ):
        assert (folder / path).stat().st_size > 0, path
