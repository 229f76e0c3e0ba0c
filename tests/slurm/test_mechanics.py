"""The job scripts on a real SLURM, with tasks that import no torch: arrays, signals, the queue, the log."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import JOBS, REPOSITORY, Cluster, private_cluster
from slurm_conf import resolves_to_loopback

pytestmark = pytest.mark.slurm
SHAPE = ("--ntasks-per-node=2",)


class Checkout:
    """A copy of the job scripts from which jobs are submitted; jobs/task.py stands before `-m fedlit`."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        shutil.copytree(REPOSITORY / "slurm", folder / "slurm", ignore=shutil.ignore_patterns("*.out"))
        (folder / "events").mkdir()
        job = folder / "slurm" / "job.sh"
        job.write_text(job.read_text().replace("python=(python) ", f"python=(python {JOBS / 'task.py'}) "))

    def submit(self, *words: str) -> str:
        return self.cluster.submit(*words, cwd=self.folder)

    def events(self, job: str, event: str) -> list[dict[str, Any]]:
        """Return what the processes of a job, or of all elements of an array, have noted, in the order of time."""
        lines = [json.loads(line) for path in self.folder.glob("events/*") for line in path.read_text().splitlines()]
        ours = [line for line in lines if line["event"] == event and (line["job"] + "_").startswith(job + "_")]
        return sorted(ours, key=lambda line: float(line["time_s"]))

    def wait_for_start(self, job: str, num_processes: int) -> None:
        self.cluster.wait_for(lambda: len(self.events(job, "start")) == num_processes, what=f"{job} to start")

    def log(self, job: str) -> str:
        return (self.folder / "slurm" / "logs" / f"fedlit-{job}.out").read_text()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture
def checkout(tmp_path: Path, cluster: Cluster) -> Checkout:
    return Checkout(tmp_path, cluster)


def test_an_array_runs_every_cell_two_at_a_time(checkout: Checkout) -> None:
    array = checkout.submit("--array=0-3%2", *SHAPE, "slurm/array.sbatch", "some_sweep", "mode=sleep", "local.lr=1e-3")
    checkout.cluster.wait(array)
    assert set(checkout.cluster.states(array).values()) == {"COMPLETED"}, checkout.log(f"{array}_0")
    starts, ends = checkout.events(array, "start"), checkout.events(array, "end")
    words = ["-m", "fedlit", "sweep", "run", "some_sweep", "--index", "?", "mode=sleep", "local.lr=1e-3"]
    assert sorted((start["job"], start["process"]) for start in starts) == [
        (f"{array}_{index}", str(process)) for index in range(4) for process in range(2)
    ]
    for start in starts:
        index = start["job"].split("_")[1]
        environment = start["environment"]
        assert start["arguments"] == [word.replace("?", index) for word in words]
        assert start["parent"] == "slurmstepd", "SLURM's signals reach its direct children only"
        assert not {"MASTER_ADDR", "MASTER_PORT", "RANK"} & environment.keys(), "left from the submitting shell"
        assert environment["FEDLIT_JOB_LOG"] == str(checkout.folder / f"slurm/logs/fedlit-{array}_{index}.out")
    for start in starts:
        running = {e["job"] for e in starts if e["time_s"] <= start["time_s"]}
        running -= {job for job in running if sum(e["job"] == job and e["time_s"] < start["time_s"] for e in ends) == 2}
        assert len(running) <= 2, running


def test_two_nodes_are_one_group(checkout: Checkout) -> None:
    job = checkout.submit("--partition=all", *SHAPE, "slurm/multi-node.sbatch", "mode=sleep", "run.name=a b")
    checkout.cluster.wait(job)
    assert checkout.cluster.state(job) == "COMPLETED", checkout.log(job)
    starts = checkout.events(job, "start")
    assert [start["arguments"] for start in starts] == [["-m", "fedlit", "run", "mode=sleep", "run.name=a b"]] * 4
    places = {(start["process"], start["environment"]["SLURMD_NODENAME"]) for start in starts}
    assert places == {("0", "127.0.0.1"), ("1", "127.0.0.1"), ("2", "127.0.0.2"), ("3", "127.0.0.2")}


def test_the_last_element_requeues_itself_and_no_other(checkout: Checkout) -> None:
    """Its SLURM_JOB_ID is the number of the whole array."""
    array = checkout.submit("--array=0-1", *SHAPE, "slurm/array.sbatch", "some_sweep", "mode=requeue")
    last = f"{array}_1"
    checkout.wait_for_start(array, 4)
    assert {s["environment"]["SLURM_JOB_ID"] for s in checkout.events(last, "start")} == {array}
    checkout.cluster.signal(last, "USR1")
    checkout.cluster.start_now(last)
    checkout.cluster.wait(last)
    assert [event["problem"] for event in checkout.events(last, "requeue")] == [None]
    assert checkout.cluster.state(last) == "COMPLETED"
    assert [start["restarts"] for start in checkout.events(last, "start")] == [0, 0, 1, 1]
    assert checkout.cluster.state(f"{array}_0") == "RUNNING"
    assert checkout.cluster.detail(f"{array}_0", "Restarts") == "0"
    assert "DUE TO JOB REQUEUE" in checkout.log(last), "the log of the first start is gone"
    checkout.cluster.run("scancel", array)
    checkout.cluster.wait(array)


@pytest.mark.parametrize("script", ["federate.sbatch", "multi-node.sbatch"])
def test_a_cancelled_job_ends_by_itself(checkout: Checkout, script: str) -> None:
    job = checkout.submit("--nodes=1", *SHAPE, f"slurm/{script}", "mode=wait")
    checkout.wait_for_start(job, 2)
    assert set(checkout.cluster.programs(job)) == {"srun", "python"}, "a shell would die of SIGTERM before its tasks"
    checkout.cluster.run("scancel", job)
    checkout.cluster.wait(job)
    assert {signal["name"] for signal in checkout.events(job, "signal")} == {"SIGTERM"}
    assert [end["process"] for end in sorted(checkout.events(job, "end"), key=lambda end: str(end["process"]))] == [
        "0",
        "1",
    ]
    assert checkout.cluster.state(job) == "CANCELLED"


def test_a_cancelled_sweep_ends_its_own_elements_and_no_other(checkout: Checkout) -> None:
    """The one at work gets SIGTERM and ends by itself, the waiting one never begins, another sweep's goes on."""
    job_script = checkout.folder / "slurm" / "job.sh"
    job_script.write_text(job_script.read_text().replace("task.py)", "task.py mode=wait)"))
    assert "mode=wait" in job_script.read_text()
    (checkout.folder / "own.yaml").write_text("experiment: demo\naxes:\n  seed: [0, 1]\n")
    other = checkout.submit("--array=0", *SHAPE, "slurm/array.sbatch", "other.yaml")

    def fedlit(*words: str) -> str:
        done = checkout.cluster.run(sys.executable, "-m", "fedlit", "sweep", *words, cwd=checkout.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    job = fedlit("submit", "own.yaml", "--max-parallel=1", "--sbatch=--ntasks-per-node=2").split()[1].rstrip(":")
    checkout.wait_for_start(f"{job}_0", 2)
    checkout.wait_for_start(f"{other}_0", 2)
    told = fedlit("cancel", "own.yaml", "--yes")
    assert f"job {job}_0, RUNNING: own-seed0\njob {job}_1, PENDING: own-seed1\n" in told
    assert "2 jobs cancelled" in told
    checkout.cluster.wait(job)
    assert set(checkout.cluster.states(job).values()) == {"CANCELLED"}
    assert {event["name"] for event in checkout.events(job, "signal")} == {"SIGTERM"}
    assert {event["job"] for event in checkout.events(job, "start")} == {f"{job}_0"}
    assert checkout.cluster.state(f"{other}_0") == "RUNNING"
    checkout.cluster.run("scancel", other)
    checkout.cluster.wait(other)


def test_a_job_put_back_by_slurm_goes_on_in_the_same_log(checkout: Checkout) -> None:
    job = checkout.submit(*SHAPE, "slurm/federate.sbatch", "mode=wait")
    checkout.wait_for_start(job, 2)
    checkout.cluster.run("scontrol", "requeue", job)
    checkout.cluster.start_now(job)
    checkout.cluster.wait(job)
    assert checkout.cluster.state(job) == "COMPLETED"
    assert [start["restarts"] for start in checkout.events(job, "start")] == [0, 0, 1, 1]
    assert len(checkout.events(job, "end")) == 4
    assert "DUE TO JOB REQUEUE" in checkout.log(job)


def test_one_failure_ends_the_others(checkout: Checkout) -> None:
    job = checkout.submit(*SHAPE, "slurm/federate.sbatch", "mode=fail")
    checkout.cluster.wait(job, timeout_s=30)
    assert checkout.cluster.state(job) == "FAILED"
    assert [signal["process"] for signal in checkout.events(job, "signal")] == ["0"]


def test_the_time_limit_is_announced(checkout: Checkout) -> None:
    """A minute is SLURM's shortest limit; it looks at warnings twice a minute, and gives them up to one early."""
    job = checkout.submit("--time=1", "--signal=USR1@45", *SHAPE, "slurm/federate.sbatch", "mode=wait")
    checkout.cluster.wait(job)
    assert {signal["name"] for signal in checkout.events(job, "signal")} == {"SIGUSR1"}
    assert sorted(signal["process"] for signal in checkout.events(job, "signal")) == ["0", "1"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("slurm/array.sbatch", "some_sweep"), "error: no number of a cell; submit with sbatch --array=0-23%8"),
        (("--array=0", "slurm/array.sbatch"), "the first argument is a sweep"),
    ],
)
def test_what_is_missing_is_said(checkout: Checkout, words: tuple[str, ...], line: str) -> None:
    log = checkout.folder / "log.txt"
    job = checkout.submit(f"--output={log}", *words)
    checkout.cluster.wait(job)
    assert checkout.cluster.state(job) == "FAILED"
    assert line in log.read_text()


def test_submitted_from_elsewhere(checkout: Checkout) -> None:
    elsewhere = checkout.folder / "events"
    job = checkout.cluster.submit(f"--output={elsewhere}/log.txt", "../slurm/federate.sbatch", cwd=elsewhere)
    checkout.cluster.wait(job)
    assert "submit from the repository's root" in (elsewhere / "log.txt").read_text()


def test_a_cluster_leaves_nothing_behind(tmp_path: Path) -> None:
    with private_cluster() as cluster:
        checkout = Checkout(tmp_path, cluster)
        job = checkout.submit(*SHAPE, "slurm/federate.sbatch", "mode=wait")
        checkout.wait_for_start(job, 2)
        assert len(cluster.processes()) >= 6  # three daemons, srun, two tasks
        if resolves_to_loopback():
            assert cluster.listening_addresses() == {"127.0.0.1"}
    assert cluster.processes() == []
    assert not cluster.folder.exists()
