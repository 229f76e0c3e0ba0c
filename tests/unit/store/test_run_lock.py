"""One run at a time: the second is refused, a dead one's lock is taken over, by one of those who try."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fedlit.errors import UserError
from fedlit.process import slurm
from fedlit.store import lock as run_lock
from fedlit.store.lock import PATH, STALE_AFTER_S, Holder, RunLock, holder, take_lock, this_process

JOB = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "big"}


def leave(folder: Path, left: Holder, silent_s: float = 0.0) -> None:
    """Write the lock of a process, last touched a while ago."""
    path = folder / PATH
    path.write_text(json.dumps(asdict(left)))
    touched_s = time.time() - silent_s
    os.utime(path, (touched_s, touched_s))


def elsewhere(**facts: object) -> Holder:
    """Return a process of another machine."""
    return replace(this_process({}), token="other", host="n7", machine="another kernel", **facts)


@pytest.fixture
def dead() -> Holder:
    """A process of this machine that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return replace(this_process({}), token="dead", pid=process.pid, process_start="1")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool | None], list[str]]:
    """Let squeue answer; return the jobs that it was asked about."""

    def answer(alive: bool | None) -> list[str]:
        asked: list[str] = []

        def is_alive(job: str) -> bool | None:
            asked.append(job)
            return alive

        monkeypatch.setattr(slurm, "is_alive", is_alive)
        return asked

    return answer


def test_the_second_is_refused_in_one_line_that_says_who(tmp_path: Path) -> None:
    lock = take_lock(tmp_path, environ=JOB)
    with pytest.raises(UserError) as caught:
        take_lock(tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    for fact in (str(tmp_path), f"process {os.getpid()}", "SLURM job 7", time.strftime("%Y-%m-%d"), "stop that run"):
        assert fact in line
    assert holder(tmp_path) == lock.holder
    lock.release()
    lock.release()
    assert holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    take_lock(tmp_path).release()


def test_a_process_that_has_ended_holds_nothing(tmp_path: Path, dead: Holder) -> None:
    leave(tmp_path, dead)
    assert holder(tmp_path) is None
    lock = take_lock(tmp_path)
    assert lock.is_held()
    assert [path.name for path in tmp_path.iterdir()] == [PATH]
    lock.release()


def test_a_later_process_of_the_same_number_holds_nothing(tmp_path: Path) -> None:
    leave(tmp_path, replace(this_process({}), process_start="1"))
    assert holder(tmp_path) is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_zombie_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    started = run_lock._process_start(process.pid)
    left = replace(this_process({}), pid=process.pid, process_start=started)
    leave(tmp_path, left)
    assert holder(tmp_path) is not None
    process.kill()
    while run_lock._process_start(process.pid) != "dead":
        time.sleep(0.01)
    assert holder(tmp_path) is None
    process.wait()


def test_killed_without_a_word(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from fedlit.store.lock import take_lock; lock = take_lock(pathlib.Path(sys.argv[1])); "
        "print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid}"):
        take_lock(tmp_path)
    process.kill()
    process.communicate()
    take_lock(tmp_path).release()


def test_another_machine_is_believed_while_it_beats(
    tmp_path: Path, answers: Callable[[bool | None], list[str]]
) -> None:
    asked = answers(None)
    leave(tmp_path, elsewhere(), silent_s=100)
    with pytest.raises(UserError, match="host n7") as caught:
        take_lock(tmp_path)
    wait = re.search(r"try again in (\d+) s", str(caught.value))
    assert wait is not None
    assert abs(int(wait[1]) - (STALE_AFTER_S - 100)) <= 2
    leave(tmp_path, elsewhere(), silent_s=STALE_AFTER_S + 1)
    assert holder(tmp_path) is None
    take_lock(tmp_path).release()
    assert asked == []


@pytest.mark.parametrize(
    ("environ", "silent_s", "alive", "lives"),
    [
        (JOB, 1, False, False),  # squeue knows it no more: at once
        (JOB, 1, True, True),
        (JOB, 1, None, True),
        ({**JOB, "SLURM_CLUSTER_NAME": "small"}, 100, False, True),  # another cluster's squeue knows nothing of it
        ({}, 1, False, True),  # outside a job, nobody knows which cluster answers: some beats must be missing
        ({}, 100, False, False),
    ],
)
def test_a_job_on_another_machine(
    tmp_path: Path,
    answers: Callable[[bool | None], list[str]],
    environ: dict[str, str],
    silent_s: float,
    alive: bool | None,
    lives: bool,
) -> None:
    answers(alive)
    leave(tmp_path, elsewhere(job="6", cluster="big"), silent_s)
    if lives:
        with pytest.raises(UserError, match="SLURM job 6"):
            take_lock(tmp_path, environ=environ)
    else:
        take_lock(tmp_path, environ=environ).release()


def test_a_requeued_job_takes_its_own_folder_at_once(tmp_path: Path) -> None:
    leave(tmp_path, elsewhere(job="7", cluster="big", restart_count=0))
    with pytest.raises(UserError):
        take_lock(tmp_path, environ={**JOB, "SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"})
    with pytest.raises(UserError):
        take_lock(tmp_path, environ=JOB)
    take_lock(tmp_path, environ={**JOB, "SLURM_RESTART_COUNT": "1"}).release()


def test_jobs_that_the_caller_knows_of(tmp_path: Path) -> None:
    leave(tmp_path, elsewhere(job="7_2"), silent_s=100)
    assert holder(tmp_path) is not None
    assert holder(tmp_path, {"7_2"}) is not None
    assert holder(tmp_path, {"7_1"}) is None


WRONG: dict[str, list[object]] = {
    "pid": ["7", 1.5, None, True, -1, 10**30, [7]],
    "since_s": ["now", None, 1e300, -1.0, float("nan")],
    **{key: [None, 7, ["x"]] for key in ("token", "host", "machine")},
    **{key: [7, ["x"], {}] for key in ("process_start", "job", "cluster")},
    "restart_count": ["7", None, 10**30],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_lock_of_another_shape_is_believed_for_a_while(key: str, value: object, tmp_path: Path) -> None:
    (tmp_path / PATH).write_text(json.dumps(asdict(elsewhere()) | {key: value}))
    assert holder(tmp_path) is None
    with pytest.raises(UserError, match=r"cut short.*try again in 300 s"):
        take_lock(tmp_path)


@pytest.mark.parametrize("content", ["", '{"token": 1', "[]", '{"token": "x"}', "[" * 100_000])
def test_a_lock_cut_short_is_believed_for_a_while(tmp_path: Path, content: str) -> None:
    path = tmp_path / PATH
    path.write_text(content)
    assert holder(tmp_path) is None
    with pytest.raises(UserError, match=r"cut short.*try again in 300 s"):
        take_lock(tmp_path)
    os.utime(path, (0, 0))
    take_lock(tmp_path).release()


def test_who_lost_the_lock_is_told_and_leaves_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_S", 0.01)
    lost = threading.Event()
    lock = take_lock(tmp_path, on_lost=lost.set)
    leave(tmp_path, elsewhere())
    assert lost.wait(5)
    assert not lock.is_held()
    lock.release()
    assert json.loads((tmp_path / PATH).read_text())["token"] == "other"


def test_a_held_lock_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_S", 0.01)
    lock = take_lock(tmp_path)
    os.utime(tmp_path / PATH, (0, 0))
    deadline = time.monotonic() + 5
    while (tmp_path / PATH).stat().st_mtime < time.time() - 60:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lock.release()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written \(No such file or directory\); choose another run\.dir"):
        take_lock(tmp_path / "missing")


@pytest.mark.parametrize("with_links", [True, False])
def test_of_many_who_take_over_at_once_one_does(
    tmp_path: Path, dead: Holder, monkeypatch: pytest.MonkeyPatch, with_links: bool
) -> None:
    """In every order of the steps that the threads happen to take."""
    if not with_links:
        monkeypatch.setattr(os, "link", _no_links)
    for _ in range(30):
        leave(tmp_path, replace(dead, token=os.urandom(8).hex()))
        winners = contend(tmp_path, num_threads=4)
        assert len(winners) == 1
        assert winners[0].is_held()
        winners[0].release()
        assert list(tmp_path.iterdir()) == []


def contend(folder: Path, num_threads: int) -> list[RunLock]:
    """Let threads try to take a lock at once; return those that did, once all others were refused."""
    start = threading.Barrier(num_threads)
    winners: list[RunLock] = []
    refused: list[UserError] = []

    def take() -> None:
        start.wait()
        try:
            winners.append(take_lock(folder))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) + len(refused) == num_threads
    return winners


def test_of_several_processes_one_does(tmp_path: Path, dead: Holder) -> None:
    leave(tmp_path, dead)
    code = (
        "import sys, pathlib; from fedlit.store.lock import take_lock; print('ready', flush=True); "
        "sys.stdin.readline(); lock = take_lock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    held = [process.stdout.readline() for process in processes if process.stdout is not None]
    assert sorted(held) == ["", "", "held\n"]
    for process in processes:
        process.communicate()


def test_one_that_died_while_it_took_over_is_taken_over(tmp_path: Path, dead: Holder) -> None:
    leave(tmp_path, dead)
    found = run_lock._read(tmp_path / PATH)
    assert found is not None
    successor = tmp_path / f".lock-after-{found.digest}.json"
    successor.write_text(json.dumps(asdict(replace(dead, token="second"))))
    lock = take_lock(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PATH]
    assert lock.is_held()
    lock.release()


def _no_links(*_: object) -> None:
    raise OSError(95, "Operation not supported")
