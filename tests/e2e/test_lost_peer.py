"""One process of two is killed, or Ctrl-C comes twice: one line on each process that is left, and no traceback."""

import os
import signal
import time

import pytest
from conftest import SMALL, ForkedRun, Zygote, free_port, merge

from fedlit.commands.endings import INTERRUPTED_EXIT_CODE
from fedlit.process.interrupt import LOST_PEER_EXIT_CODE
from fedlit.store.status import read_status

LONG = ["num_rounds=200", "eval.every=200", "local.steps=4"]


def start(zygote: Zygote, name: str, *arguments: str) -> ForkedRun:
    """Start a federation of two processes and wait until its first round is saved."""
    run = zygote.start(name, *merge(SMALL, (*LONG, *arguments)), num_processes=2)
    run.wait_until((zygote.folder / name / "checkpoints" / "round-0001").exists)
    return run


def wait(run: ForkedRun) -> list[int | None]:
    deadline = time.monotonic() + 60
    while None in (codes := run.exit_codes()):
        assert time.monotonic() < deadline, run.output()
        time.sleep(0.01)
    return codes


def told(run: ForkedRun, rank: int, word: str) -> list[str]:
    """Return the lines of a process that tell its end; it must have written no traceback."""
    text = run.outputs[rank].read_text()
    assert "Traceback" not in text, text
    assert "Error" not in text, text
    return [line for line in text.splitlines() if line.startswith(word)]


@pytest.mark.parametrize("killed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_is_one_line_on_the_other(zygote: Zygote, killed: int) -> None:
    run, other = start(zygote, f"killed-{killed}"), 1 - killed
    os.kill(run.pids[killed], signal.SIGKILL)
    codes = wait(run)
    assert (codes[killed], codes[other]) == (-signal.SIGKILL, LOST_PEER_EXIT_CODE), run.output()
    (line,) = told(run, other, "lost: ")
    folder = zygote.folder / f"killed-{killed}"
    saved = max(int(path.name[-4:]) for path in (folder / "checkpoints").glob("round-????"))
    assert line.startswith(f"lost: process {other} of 2: another process of the run is gone; its console may say why (")
    assert line.endswith(f"; the same command goes on after round {saved}")
    status = read_status(folder)
    assert (status.state, status.reason) == (
        "failed",
        "another process of the run is gone; its console may say why",
    )


@pytest.mark.parametrize(
    ("asked", "num_batches"),
    [
        ((0, 1), 1),
        ((1,), 2),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [((0, 1), 2), ((0,), 1), ((0,), 2)]),
    ],
)
def test_the_second_interrupt_is_one_line_on_each(zygote: Zygote, asked: tuple[int, ...], num_batches: int) -> None:
    """At a terminal both processes get both signals; one that got none has lost the other.

    With one batch of the first evaluation process 1 waits in a collective, where two signals count as one.
    """
    name = f"interrupted-{asked}-{num_batches}"
    slow = ["eval.max_examples=64", f"eval.batch_size={64 // num_batches}", "eval.max_new_tokens=220"]
    run = zygote.start(name, *merge(SMALL, (*slow, "partition.min_test_rows=64")), num_processes=2)
    run.wait_until((zygote.folder / name / "partition.json").exists)
    time.sleep(0.7)  # in the middle of a batch
    for _ in range(2):
        for rank in asked:
            os.kill(run.pids[rank], signal.SIGINT)
        time.sleep(0.05)
    codes = wait(run)
    for rank in (0, 1):
        word, code = ("interrupted: ", INTERRUPTED_EXIT_CODE) if rank in asked else ("lost: ", LOST_PEER_EXIT_CODE)
        assert codes[rank] == code, run.output()
        assert len(told(run, rank, word)) == 1, run.output()


def test_a_silent_process_is_not_waited_for_for_ever(zygote: Zygote) -> None:
    run = start(zygote, "silent", "compute.timeout_s=2")
    os.kill(run.pids[1], signal.SIGSTOP)
    try:
        while run.exit_codes()[0] is None:
            time.sleep(0.01)
    finally:
        os.kill(run.pids[1], signal.SIGKILL)
    assert wait(run) == [LOST_PEER_EXIT_CODE, -signal.SIGKILL]
    (line,) = told(run, 0, "lost: ")
    assert line.startswith("lost: process 0 of 2: another process of the run gave no answer in 2 s; ")


@pytest.mark.parametrize("alone", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_one_that_never_comes_is_not_waited_for_as_long_as_a_collective(zygote: Zygote, alone: int) -> None:
    """The other died before there was a group, of its rows, say: 2 s of a start, not half an hour."""
    words = [*merge(SMALL, ("compute.start_timeout_s=2",)), f"run.dir={zygote.folder}", f"run.name=alone-{alone}"]
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "alone"}
    ranks = {"RANK": str(alone), "LOCAL_RANK": str(alone), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    output = zygote.folder / f"alone-{alone}.txt"
    request = {"start": words, "environment": rendezvous | ranks, "output": str(output)}
    run = ForkedRun([zygote._ask(request)["pid"]], [output], zygote._ask)
    assert wait(run) == [LOST_PEER_EXIT_CODE], run.output()
    assert "Traceback" not in run.output()  # torch's own log of the connection stands before the line
    (line,) = (line for line in run.output().splitlines() if line.startswith("lost: "))
    assert line.startswith("lost: not all processes of the run were there after 2 s (compute.start_timeout_s); ")
    assert len(line) <= 400
    assert not (zygote.folder / f"alone-{alone}").exists()


def test_the_limit_of_a_start_is_not_that_of_a_round(zygote: Zygote) -> None:
    run = start(zygote, "pause", "compute.start_timeout_s=2")
    os.kill(run.pids[1], signal.SIGSTOP)
    time.sleep(4)
    os.kill(run.pids[1], signal.SIGCONT)
    number = max(int(path.name[-4:]) for path in (zygote.folder / "pause" / "checkpoints").glob("round-????"))
    run.wait_until((zygote.folder / "pause" / "checkpoints" / f"round-{number + 3:04d}").exists)
    assert run.kill() == [-signal.SIGKILL] * 2
