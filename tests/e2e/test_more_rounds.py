"""A finished run that is given more rounds ends with the bytes of a run that had as many from the start."""

import json
import time
from pathlib import Path

import pytest
from conftest import CommandLine, Zygote
from test_every_recipe import ROWS
from test_every_recipe import TINY as EVERY

from fedlit.store.status import read_status

TINY = [*(word for word in EVERY if not word.startswith("num_rounds=")), "eval.every=2"]
CASES = {
    "stateless": ["method=fedit", "local.steps=2", "local.schedule=linear"],
    "stateful": ["method=fedsa_lora", "local.optimizer_state=keep", "cohort_size=2"],
}


@pytest.fixture(scope="module")
def rows(zygote: Zygote) -> Path:
    path = zygote.folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def arguments_of(case: str, rows: Path) -> list[str]:
    given = {argument.split("=")[0] for argument in CASES[case]}
    return [*(word for word in TINY if word.split("=")[0] not in given), *CASES[case], f"data.path={rows}"]


@pytest.mark.parametrize("case", [pytest.param("stateless", marks=pytest.mark.slow), "stateful"])
def test_four_rounds_and_then_six_are_six(
    case: str, zygote: Zygote, forked_command_line: CommandLine, rows: Path
) -> None:
    arguments = arguments_of(case, rows)
    whole, longer = f"{case}-6", f"{case}-4-6"
    zygote.run(whole, *arguments, "num_rounds=6")
    zygote.run(longer, *arguments, "num_rounds=4")
    assert len((zygote.folder / longer / "metrics.jsonl").read_text().splitlines()) == 5
    out = zygote.run(longer, *arguments, "num_rounds=6", num_processes=2)
    assert "resumed after round 4 of 6" in out
    assert forked_command_line.result(longer) == forked_command_line.result(whole)
    status = read_status(zygote.folder / longer)
    assert (status.state, status.num_rounds, status.num_finished_rounds) == ("done", 6, 6)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["eval.every=3"], "round 4 was evaluated for being the last"),
        (["local.schedule_over=run", "local.warmup=0.5"], "local.schedule_over=run"),
    ],
)
def test_a_run_that_would_be_another_is_refused(more: list[str], reason: str, zygote: Zygote, rows: Path) -> None:
    arguments = arguments_of("stateless", rows)
    arguments = [word for word in arguments if word.split("=")[0] != more[0].split("=")[0]] + more
    name = f"refused-{more[0].partition('=')[0]}"
    zygote.run(name, *arguments, "num_rounds=4")
    before = (zygote.folder / name / "metrics.jsonl").read_bytes()
    run = zygote.start(name, *arguments, "num_rounds=6")
    try:
        while None in run.exit_codes():
            time.sleep(0.01)
    finally:
        run.kill()
    assert run.exit_codes() == [2]
    assert reason in run.output()
    assert "Traceback" not in run.output()
    assert (zygote.folder / name / "metrics.jsonl").read_bytes() == before
