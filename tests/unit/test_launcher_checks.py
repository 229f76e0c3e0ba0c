"""SLURM tasks that are not one for each device are refused in one line, before torch is imported."""

import subprocess
import sys

import pytest

from fedlit.config import ComputeConfig, check_launcher
from fedlit.errors import UserError

ALLOCATION = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "sweep", "SLURM_NNODES": "1"}
TASK = ALLOCATION | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}


def tasks(number: int, per_node: int | None = None, num_nodes: int = 1, step: bool = True) -> dict[str, str]:
    """Return the environment of a task that srun started or, without `step`, of the batch script."""
    told = {} if per_node is None else {"SLURM_NTASKS_PER_NODE": str(per_node)}
    return (TASK if step else ALLOCATION) | {"SLURM_NTASKS": str(number), "SLURM_NNODES": str(num_nodes)} | told


@pytest.mark.parametrize(
    ("environ", "compute"),
    [
        ({}, ComputeConfig(devices=2)),
        (tasks(2, 2), ComputeConfig()),
        (tasks(2, 2), ComputeConfig(devices=2)),
        (tasks(4, 2, 2), ComputeConfig()),
        (tasks(4, 2, 2), ComputeConfig(devices=2, num_nodes=2)),
        (tasks(1), ComputeConfig()),
        (tasks(1, 1, step=False), ComputeConfig()),
        (tasks(2, 1, 2), ComputeConfig(num_nodes=2)),
    ],
)
def test_one_task_for_each_device_passes(environ: dict[str, str], compute: ComputeConfig) -> None:
    check_launcher(environ, compute)


@pytest.mark.parametrize(
    ("environ", "compute", "message"),
    [
        (tasks(2, 2), ComputeConfig(devices=4), r"compute\.devices=4 .* starts 2 tasks .*--ntasks-per-node=4"),
        (tasks(1, 1), ComputeConfig(devices=2), r"compute\.devices=2 .* starts 1 tasks .*--ntasks-per-node=2"),
        (tasks(1, step=False), ComputeConfig(devices=2), r"compute\.devices=2 .*--ntasks-per-node=2"),
        (
            tasks(2, 2, step=False),
            ComputeConfig(),
            r"one process of an allocation of 2 SLURM .*start it with srun",
        ),
        (tasks(2), ComputeConfig(devices=2), r"2 tasks without a number per node; use --ntasks-per-node=2 in place"),
        (tasks(4, num_nodes=2), ComputeConfig(), r"use --ntasks-per-node=2 in place of --ntasks"),
        (tasks(1, 2), ComputeConfig(), r"started 1 tasks, not --ntasks-per-node=2 .*leave out srun's own"),
        (tasks(4, 2, 2), ComputeConfig(num_nodes=3), r"compute\.num_nodes=3 but SLURM gives 2 nodes; use sbatch"),
    ],
)
def test_others_are_one_line_with_the_remedy(environ: dict[str, str], compute: ComputeConfig, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_launcher(environ, compute)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "own",
    [{"TORCHELASTIC_RUN_ID": "1"}, {"SLURM_JOB_NAME": "bash"}, {"SLURM_JOB_NAME": "interactive"}],
)
def test_launchers_that_make_their_own_processes_are_left_alone(own: dict[str, str]) -> None:
    check_launcher(tasks(2, 2, step=False) | own, ComputeConfig(devices=4))


def test_the_shape_of_the_group_is_slurms() -> None:
    from fedlit.process.communication import group_shape  # noqa: PLC0415  the other tests of this file need no torch

    assert group_shape(ComputeConfig(), tasks(6, 3, 2)) == (3, 2)
    assert group_shape(ComputeConfig(), tasks(1)) == (1, 1)
    assert group_shape(ComputeConfig(devices=2, num_nodes=3), {}) == (2, 3)
    elastic = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}
    assert group_shape(ComputeConfig(), tasks(1) | elastic) == (2, 2)


def test_it_is_known_without_torch() -> None:
    code = (
        "import sys; from fedlit.commands.endings import run_federation; code = run_federation(['compute.devices=3']); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=tasks(2, 2))
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr.startswith("error: compute.devices=3")
