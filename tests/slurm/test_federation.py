"""Real federations through the job scripts on a real SLURM: an array, two nodes, and every way a job is interrupted.

Most of the time is the import of torch, in every process: the tests share one array, whose cells are the
uninterrupted runs with which the interrupted ones are compared.
"""

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import REPOSITORY, Cluster, private_cluster
from run_result import run_result

from fedlit.process.interrupt import STOPPED_EXIT_CODE
from fedlit.store.status import read_status

pytestmark = pytest.mark.slurm
CELLS = [(method, seed) for method in ("fedsa_lora", "fedex_lora") for seed in (0, 1)]
NUM_ROUNDS = 6
SETTINGS = {
    "data": "jsonl",
    "data.path": "rows.jsonl",
    "data.scores": "[bleu_4]",
    "local.optimizer_state": "keep",
    "num_clients": 3,
    "cohort_size": 2,
    "num_rounds": NUM_ROUNDS,
    "local.steps": 4,
    "local.batch_size": 4,
    "eval.max_examples": 4,
    "eval.batch_size": 2,
    "eval.max_new_tokens": 4,
    "logging.wandb": "disabled",
}
SWEEP = "experiment: demo\naxes:\n  method: [fedsa_lora, fedex_lora]\n  seed: [0, 1]\n"
OVERRIDES = [f"{key}={value}" for key, value in SETTINGS.items()]
USER_ERROR = 2


class Checkout:
    """The repository as a user's clone, from which jobs are submitted, with run folders of its own."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        folder.mkdir(exist_ok=True)
        shutil.copytree(REPOSITORY / "slurm", folder / "slurm", ignore=shutil.ignore_patterns("*.out"))
        (folder / "experiments").symlink_to(REPOSITORY / "experiments")
        rows = [
            {"prompt": f"{i} + 3 =", "response": f"{i + 3} in all", "label": ["odd", "even"][i % 2]} for i in range(120)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def submit(self, script: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
        """Submit one of the job scripts with sbatch's options before it."""
        return self.cluster.submit("--time=60", *options, f"slurm/{script}", *arguments, cwd=self.folder)

    def log(self, job: str) -> str:
        path = self.folder / "slurm" / "logs" / f"fedlit-{job}.out"
        return path.read_text() if path.exists() else f"no {path}"

    def wait_for_rounds(self, job: str, folder: Path, num_rounds: int) -> None:
        """Wait until the checkpoint of a round is there, and fail if the job ends before."""

        def reached() -> bool:
            if num_finished(folder) >= num_rounds:
                return True
            assert self.cluster.state(job) in ("PENDING", "RUNNING"), self.log(job)
            return False

        self.cluster.wait_for(reached, timeout_s=240, what=f"round {num_rounds} of {folder.name}")

    def require_state(self, job: str, state: str) -> None:
        self.cluster.wait(job, timeout_s=240)
        assert self.cluster.state(job) == state, self.log(job)


@dataclass(frozen=True)
class Array:
    """The array that has run: its job, its checkout and what SLURM says of its elements."""

    job: str
    folder: Path
    states: dict[str, str]
    indices: tuple[int, ...]

    def cell(self, index: int) -> Path:
        method, seed = CELLS[index]
        return self.folder / "runs" / "tiny_sweep" / f"tiny_sweep-{method}-seed{seed}"


def num_finished(folder: Path) -> int:
    """Return the number of the newest checkpoint."""
    return max((int(path.name[-4:]) for path in folder.glob("checkpoints/round-????")), default=0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def array(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Array:
    """Run two cells that differ in both axes."""
    return run_array(cluster, tmp_path_factory, (0, 3), "slurm-array")


def run_array(cluster: Cluster, factory: pytest.TempPathFactory, indices: tuple[int, ...], name: str) -> Array:
    """Run an array once, however many workers pytest has."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = folder / "array.json"
        if not told.exists():
            shutil.rmtree(folder, ignore_errors=True)
            checkout = Checkout(folder, cluster)
            (folder / "tiny_sweep.yaml").write_text(SWEEP)
            options = (f"--array={','.join(map(str, indices))}%2", "--ntasks-per-node=2")
            job = checkout.submit("array.sbatch", "tiny_sweep.yaml", *OVERRIDES, options=options)
            cluster.wait(job, timeout_s=300)
            told.write_text(json.dumps({"job": job, "states": cluster.states(job)}))
        return Array(folder=folder, indices=indices, **json.loads(told.read_text()))


@pytest.fixture
def checkout(tmp_path: Path, cluster: Cluster) -> Checkout:
    return Checkout(tmp_path / "clone", cluster)


def arguments(index: int, name: str) -> list[str]:
    """Return the command line of a cell under another name."""
    method, seed = CELLS[index]
    return ["experiment=demo", f"method={method}", f"seed={seed}", *OVERRIDES, f"run.name={name}"]


def test_an_array_of_cells(array: Array) -> None:
    assert_is_done(array)


@pytest.mark.slow
def test_an_array_of_all_cells(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert_is_done(run_array(cluster, tmp_path_factory, (0, 1, 2, 3), "slurm-whole-array"))


def assert_is_done(array: Array) -> None:
    """Each element has run its own cell, and no two are alike."""
    for index in array.indices:
        job = f"{array.job}_{index}"
        log = array.folder / "slurm" / "logs" / f"fedlit-{job}.out"
        assert array.states[job] == "COMPLETED", log.read_text()
        status = read_status(array.cell(index))
        assert (status.state, status.num_finished_rounds, status.job) == ("done", NUM_ROUNDS, job)
        assert status.log == str(log)
        assert "2 processes" in log.read_text()
    curves = {json.dumps(run_result(array.cell(index))[1]) for index in array.indices}
    assert len(curves) == len(array.indices)


def test_two_nodes_put_back_by_slurm_and_killed(array: Array, checkout: Checkout) -> None:
    folder = checkout.folder / "runs" / "nodes"
    words, options = arguments(0, "nodes"), ("--partition=all", "--nodes=2", "--ntasks-per-node=1")
    job = checkout.submit("multi-node.sbatch", *words, options=options)
    checkout.wait_for_rounds(job, folder, 1)
    checkout.cluster.run("scontrol", "requeue", job)
    checkout.cluster.start_now(job)
    before = num_finished(folder)
    assert before < NUM_ROUNDS - 1, "the run was not interrupted in its middle"

    checkout.wait_for_rounds(job, folder, before + 1)
    (first,) = checkout.cluster.tasks(job, process=0)
    os.kill(first, signal.SIGKILL)
    checkout.require_state(job, "FAILED")
    assert num_finished(folder) < NUM_ROUNDS
    assert read_status(folder).state in ("killed", "failed"), "process 1 may have had the time to say so"

    again = checkout.submit("federate.sbatch", *words)  # one process: the shape of a job changes no bit
    checkout.require_state(again, "COMPLETED")
    assert checkout.cluster.detail(job, "NodeList") == "127.0.0.[1-2]"
    assert checkout.log(job).count("2 processes") == 2
    assert "resumed after round" in checkout.log(job)
    assert "resumed after round" in checkout.log(again)
    assert run_result(folder) == run_result(array.cell(0))


@pytest.mark.slow
def test_a_time_limit_and_a_second_job(array: Array, checkout: Checkout) -> None:
    folder = checkout.folder / "runs" / "limit"
    options = ("--ntasks-per-node=2",)
    job = checkout.submit("federate.sbatch", *arguments(3, "limit"), options=options)
    checkout.wait_for_rounds(job, folder, 1)
    checkout.cluster.signal(job, "STOP")  # holds the run while the second job starts
    second = checkout.submit("federate.sbatch", *arguments(3, "limit"))
    checkout.require_state(second, "FAILED")
    assert checkout.cluster.detail(second, "ExitCode") == f"{USER_ERROR}:0"
    errors = [line for line in checkout.log(second).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"SLURM job {job}," in errors[0]
    assert "Traceback" not in checkout.log(second)

    checkout.cluster.signal(job, "CONT")
    checkout.cluster.signal(job, "USR1")
    checkout.cluster.wait(job, until="PENDING")
    assert read_status(folder).state == "requeued", checkout.log(job)
    assert num_finished(folder) < NUM_ROUNDS
    checkout.cluster.start_now(job)
    checkout.require_state(job, "COMPLETED")
    assert checkout.cluster.detail(job, "Restarts") == "1"
    log = checkout.log(job)
    assert log.count("resumed after round") == 1
    assert "Traceback" not in log
    assert read_status(folder).state == "done"
    assert run_result(folder) == run_result(array.cell(3))


def test_cells_that_share_a_job_and_its_time_limit(array: Array, checkout: Checkout) -> None:
    """The limit comes in the second one; the first is not run again."""
    (checkout.folder / "tiny_sweep.yaml").write_text(SWEEP)
    words = ["tiny_sweep.yaml", "--cells=0,3", "--cells-per-task=2", *OVERRIDES]
    job = f"{checkout.submit('array.sbatch', *words, options=('--array=0',))}_0"
    runs = [checkout.folder / "runs" / "tiny_sweep" / array.cell(index).name for index in (0, 3)]
    checkout.wait_for_rounds(job, runs[1], 1)
    assert read_status(runs[0]).state == "done"
    checkout.cluster.signal(job, "USR1")
    checkout.cluster.wait(job, until="PENDING")
    assert read_status(runs[1]).state == "requeued", checkout.log(job)
    checkout.cluster.start_now(job)
    checkout.require_state(job, "COMPLETED")
    log = checkout.log(job)
    assert log.count("is done already") == 1
    assert log.count("resumed after round") == 1
    for folder, index in zip(runs, (0, 3), strict=True):
        status = read_status(folder)
        assert (status.state, status.job, status.log) == ("done", job, array_log(checkout, job))
        assert run_result(folder) == run_result(array.cell(index))


def array_log(checkout: Checkout, job: str) -> str:
    return str(checkout.folder / "slurm" / "logs" / f"fedlit-{job}.out")


@pytest.mark.slow
def test_a_job_too_short_for_one_round_is_not_put_back(checkout: Checkout) -> None:
    folder = checkout.folder / "runs" / "short"
    words = [word for word in arguments(0, "short") if not word.startswith("local.steps=")]
    job = checkout.submit("federate.sbatch", *words, "local.steps=1000000")
    checkout.cluster.wait_for((folder / "status.json").exists, timeout_s=240, what="the run to start")
    checkout.cluster.signal(job, "USR1")
    checkout.require_state(job, "FAILED")
    assert checkout.cluster.detail(job, "Restarts") == "0"
    assert checkout.cluster.detail(job, "ExitCode") not in ("0:0", f"{STOPPED_EXIT_CODE}:0")
    status = read_status(folder)
    assert status.state == "timed_out"
    assert "not one round was finished" in status.reason
    assert status.reason in checkout.log(job)
