"""Jobs and their ids, from environments as SLURM makes them and from programs that answer as its own do."""

from pathlib import Path

import pytest

from fedlit.process import slurm

ELEMENT = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder in which programs are found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, *, out: str = "", err: str = "", ends: str = "exit 0") -> Path:
    """Write a program that notes its arguments and answers; return where it notes them."""
    noted = folder / f"{name}.arguments"
    path = folder / name
    path.write_text(f"#!/bin/sh\necho \"$@\" >> {noted}\nprintf '{out}'\nprintf '{err}' >&2\n{ends}\n")
    path.chmod(0o755)
    return noted


def test_the_last_element_of_an_array_is_not_the_array() -> None:
    assert slurm.job_id(ELEMENT) == "7_3"
    assert slurm.job_id({"SLURM_JOB_ID": "7"}) == "7"
    assert slurm.job_id({}) is None


@pytest.mark.parametrize(("value", "count"), [({}, 0), ({"SLURM_RESTART_COUNT": "2"}, 2)])
def test_restarts(value: dict[str, str], count: int) -> None:
    assert slurm.restart_count(value) == count


def test_requeue_names_the_element(programs: Path) -> None:
    noted = program(programs, "scontrol")
    assert slurm.requeue(ELEMENT) is None
    assert noted.read_text() == "requeue 7_3\n"


def test_the_signal_that_a_requeue_sets_off_is_no_failure(programs: Path) -> None:
    program(programs, "scontrol", ends="kill -TERM $$")
    assert slurm.requeue(ELEMENT) is None


def test_a_requeue_that_fails_is_one_line(programs: Path) -> None:
    missing = slurm.requeue(ELEMENT)
    assert missing is not None
    assert "No such file" in missing
    program(programs, "scontrol", err="slurm_requeue error:\\n Job/step already completing\\n", ends="exit 1")
    assert slurm.requeue(ELEMENT) == "scontrol requeue 7_3: slurm_requeue error: Job/step already completing"
    assert slurm.requeue({}) == "no SLURM job"


@pytest.mark.parametrize(
    ("answer", "alive"),
    [
        ({"out": "RUNNING\\n"}, True),
        ({"out": "COMPLETING\\n"}, True),
        ({"out": "PENDING\\n"}, False),
        ({"out": ""}, False),
        ({"err": "slurm_load_jobs error: Invalid job id specified", "ends": "exit 1"}, False),
        ({"err": "Unable to contact slurm controller", "ends": "exit 1"}, None),
    ],
)
def test_a_job_is_alive_if_it_has_processes(programs: Path, answer: dict[str, str], alive: bool | None) -> None:
    program(programs, "squeue", **answer)
    assert slurm.is_alive("7_3") is alive


def test_without_squeue_nothing_is_known(programs: Path) -> None:
    assert slurm.is_alive("7_3") is None
    assert slurm.jobs_in_queue() is None


def test_the_jobs_of_this_user(programs: Path) -> None:
    program(programs, "squeue", out="7_3 RUNNING\\n7_4 PENDING\\n9 COMPLETING\\n")
    assert slurm.jobs_in_queue() == {"7_3": "RUNNING", "7_4": "PENDING", "9": "COMPLETING"}
    program(programs, "squeue", ends="exit 1")
    assert slurm.jobs_in_queue() is None


def test_jobs_whose_ids_end_alike_have_ports_of_their_own() -> None:
    first, second = (slurm.main_port({"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0"}) for job in ("1230007", "1240007"))
    assert first != second
    assert first == slurm.main_port({"SLURM_JOB_ID": "1230007", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"})


def test_ten_thousand_jobs_and_their_steps_have_ports_of_their_own() -> None:
    jobs = [{"SLURM_JOB_ID": str(4_000_000_000 + number), "SLURM_STEP_ID": "0"} for number in range(10_000)]
    assert len({slurm.main_port(job) for job in jobs}) == 10_000
    steps = [{"SLURM_JOB_ID": "71", "SLURM_STEP_ID": str(number)} for number in (*range(1000), 2**32 - 6)]
    assert len({slurm.main_port(step) for step in steps}) == len(steps)
    assert all(12_000 <= slurm.main_port(environ) <= 32_010 for environ in (*jobs, *steps, {}, {"SLURM_JOB_ID": "x"}))


def test_a_step_has_a_name() -> None:
    assert slurm.step({**ELEMENT, "SLURM_STEP_ID": "0"}) == "7_3.0"
    assert slurm.step({"SLURM_JOB_ID": "7"}) == "7.batch"
    assert slurm.step({}) is None
