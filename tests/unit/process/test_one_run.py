"""What the processes of one launch call their run, and when two of them belong together."""

import os
from dataclasses import replace

import pytest

from fedlit.config import ComputeConfig, LocalConfig, RunConfig, RunFolderConfig
from fedlit.errors import MixedRuns, UserError
from fedlit.process import communication, one_run
from fedlit.process.communication import launch
from fedlit.process.one_run import RunIdentity, identity, require_one_run

CONFIG = RunConfig(run=RunFolderConfig(dir="runs", name="mine"))
STEP = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "fedlit", "SLURM_STEP_ID": "0"}
MINE = RunIdentity(folder="runs/mine", settings="0" * 64, launch="SLURM job 7.0")


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, ""),
        (STEP, "SLURM job 7.0"),
        (STEP | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "3"}, "SLURM job 7.0"),
        (STEP | {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}, "SLURM job 5_2.0"),
        (STEP | {"SLURM_JOB_NAME": "interactive"}, ""),
        ({"TORCHELASTIC_RUN_ID": "abc"}, "torchrun abc"),
        (STEP | {"TORCHELASTIC_RUN_ID": "abc"}, "torchrun abc"),
        ({"TORCHELASTIC_RUN_ID": "none"}, ""),  # `fabric run`, on each node by hand
    ],
)
def test_a_launch_has_a_name(environ: dict[str, str], launch: str) -> None:
    assert identity(CONFIG, environ).launch == launch


def test_the_settings_are_those_that_change_a_result() -> None:
    mine = identity(CONFIG, {})
    assert mine.folder == "runs/mine"
    assert identity(replace(CONFIG, compute=ComputeConfig(devices=4, timeout_s=5)), {}) == mine
    assert identity(replace(CONFIG, local=LocalConfig(lr=0.5)), {}).settings != mine.settings
    assert identity(replace(CONFIG, run=RunFolderConfig(dir="runs", name="other")), {}).folder != mine.folder


@pytest.mark.parametrize(
    "others",
    [
        [replace(MINE, launch="SLURM job 8.0")],
        [replace(MINE, settings="1" * 64)],
        [replace(MINE, folder="runs/other")],
        [MINE, replace(MINE, launch=""), replace(MINE, settings="1" * 64)],
        [replace(MINE, launch=""), replace(MINE, launch="SLURM job 8.0")],
        [replace(MINE, folder=f"runs/{'x' * 250}", launch="torchrun " + "y" * 40)],
    ],
)
def test_every_process_names_two_runs(others: list[RunIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(communication, "gather_objects", lambda _mine: [MINE, *others])
    with pytest.raises(MixedRuns) as caught:
        require_one_run(CONFIG)
    line = str(caught.value)
    assert len(line) <= 400
    assert "\n" not in line
    assert str(MINE) in line
    assert len(set(caught.value.runs)) == 2


@pytest.mark.parametrize("others", [[], [MINE], [replace(MINE, launch="")]])
def test_one_run_passes(others: list[RunIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_run.communication, "gather_objects", lambda _mine: [MINE, *others])
    require_one_run(CONFIG)


@pytest.mark.parametrize("port", ["", "abc", "0", "-1", "65536", "1e3", "\uff17", "9" * 5000])
def test_what_is_no_port_is_one_line(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", port)
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    with pytest.raises(UserError, match="is no port; give a number from 1 to 65535") as caught:
        launch(ComputeConfig(accelerator="cpu"))
    assert len(str(caught.value)) < 200
