"""Parts from a module outside the package run through the command line: a rule over single clients, a transform, a rule
over client moments, an optimizer of two rates, a plan with random dropout.
"""

import json
import shutil
import time
from pathlib import Path

import pytest
from conftest import CommandLine, Zygote
from safetensors.torch import load_file
from test_every_recipe import ROWS, TINY

MODULE = Path(__file__).resolve().parents[1] / "outside" / "outside_parts.py"
COMMON = [*TINY, "plugins=[outside_parts]", "method=fedit"]
PARTS = {
    "plain": [],
    "trimmed_mean": ["method.rule=trimmed_mean", "method.trim=1"],
    "clip_norm": ["method.transforms=[clip_norm]", "method.clip_norm=0.01"],
    "moment_average": ["method.rule=moment_average"],
    "lora_plus": ["method.optimizer=lora_plus", "method.lr_ratio=4", "local.schedule=linear", "local.steps=3"],
    "random_dropout": ["cohort.availability=random_dropout", "cohort.options={rate: 0.5}"],
}


@pytest.fixture(scope="module")
def arguments(zygote: Zygote) -> list[str]:
    shutil.copy(MODULE, zygote.folder)
    path = zygote.folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return [*COMMON, f"data.path={path}"]


def given(arguments: list[str], part: str) -> list[str]:
    own = {argument.split("=")[0] for argument in PARTS[part]}
    return [*(argument for argument in arguments if argument.split("=")[0] not in own), *PARTS[part]]


@pytest.fixture(scope="module")
def plain(zygote: Zygote, arguments: list[str]) -> Path:
    """A run without a part from outside, made once in every worker that compares with it."""
    zygote.run("plain", *given(arguments, "plain"))
    return zygote.folder / "plain"


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, zygote: Zygote, arguments: list[str]) -> str:
    """Run a part in one process and return its name."""
    name = str(request.param)
    if name == "plain":
        request.getfixturevalue("plain")
    else:
        zygote.run(name, *given(arguments, name))
    return name


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "whole",
    [
        part if part in ("moment_average", "random_dropout") else pytest.param(part, marks=pytest.mark.slow)
        for part in PARTS
    ],
    indirect=True,
    scope="module",
)
def test_processes_do_not_change_a_bit(
    zygote: Zygote, forked_command_line: CommandLine, arguments: list[str], whole: str
) -> None:
    zygote.run(f"{whole}-2", *given(arguments, whole), num_processes=2)
    assert forked_command_line.result(f"{whole}-2") == forked_command_line.result(whole)


@pytest.mark.parametrize("whole", [part for part in PARTS if part != "plain"], indirect=True, scope="module")
def test_it_does_something(zygote: Zygote, plain: Path, whole: str) -> None:
    assert records(zygote.folder / whole)[-1]["aggregation/checksum"] != records(plain)[-1]["aggregation/checksum"]


@pytest.mark.parametrize("whole", ["random_dropout"], indirect=True, scope="module")
def test_clients_that_are_lost_are_told_and_weigh_nothing(zygote: Zygote, whole: str) -> None:
    rounds = records(zygote.folder / whole)[1:]
    assert any("clients/lost" in record for record in rounds)
    for record in rounds:
        lost = record.get("clients/lost", [])
        assert isinstance(lost, list)
        assert record["aggregation/num_clients"] == 3 - len(lost)
        assert not any(f"client/{client}/train_loss" in record for client in lost)


@pytest.mark.parametrize("whole", ["moment_average"], indirect=True, scope="module")
def test_moments_are_in_the_server_and_travel(zygote: Zygote, whole: str) -> None:
    newest = max((zygote.folder / whole / "checkpoints").glob("round-????"))
    moments = load_file(newest / "optimizer.safetensors")
    assert moments
    assert all(name.startswith("moments/") and float(tensor.max()) > 0 for name, tensor in moments.items())
    model = sum(tensor.nbytes for tensor in load_file(newest / "shared.safetensors").values())
    assert records(zygote.folder / whole)[1]["communication/uplink_bytes"] == 3 * 2 * model


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plugins=[no_such_module]"], "plugins: the module no_such_module cannot be imported"),
        (["plugins=[outside_parts]", "method.rule=trimed_mean"], "did you mean trimmed_mean?"),
        (["plugins=[outside_parts]", "cohort.options={rat: 1}", "cohort.availability=random_dropout"], "rat"),
        (["plugins=[outside_parts]", "method.trim=2"], "is an option of none of this recipe's parts"),
        (["plugins=7"], "expected: list of text"),
    ],
)
def test_a_mistake_is_one_line(zygote: Zygote, arguments: list[str], words: list[str], told: str) -> None:
    keys = {word.split("=")[0] for word in words}
    run = zygote.start(
        f"mistake-{''.join(filter(str.isalpha, told))}",
        *(word for word in arguments if word.split("=")[0] not in keys),
        *words,
    )
    while None in run.exit_codes():
        time.sleep(0.01)
    assert run.exit_codes() == [2]
    assert run.output().count("\n") == 1
    assert told in run.output()
