"""Killed anywhere, a run goes on under the same command and ends with the bytes of the run that was left alone."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import pytest
from conftest import CommandLine

from fedlit.process.interrupt import STOPPED_EXIT_CODE
from fedlit.store.status import read_status

ARGUMENTS = ["method=fedsa_lora", "local.optimizer_state=keep", "cohort_size=2", "num_rounds=4"]
Wait = Callable[[Callable[[], bool], subprocess.Popen[str]], None]


@pytest.fixture(scope="module")
def reference(module_command_line: CommandLine) -> CommandLine:
    done = module_command_line.run("whole", *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    return module_command_line


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    lines = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [(int(child), int(parent)) for child, parent in map(str.split, lines.splitlines())]
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in pairs if its_parent == parent]
    return found[1:]


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL a command with everything it started, and wait for its end. `fabric run` starts processes in sessions of
    their own, which would go on to the end of the run without it.
    """
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_killed_twice_on_other_numbers_of_processes(reference: CommandLine, wait_for: Wait) -> None:
    checkpoints = reference.folder / "killed" / "checkpoints"
    moment = random.Random(0)
    for round_number, launcher, num_processes in ((1, "python", 1), (2, "fabric", 2)):
        process = reference.start("killed", *ARGUMENTS, launcher=launcher, num_processes=num_processes)
        wait_for((checkpoints / f"round-{round_number:04d}").exists, process)
        time.sleep(moment.random())  # anywhere in the next round, its evaluation or its checkpoint
        assert process.poll() is None, "the run ended before it was killed"
        kill(process)
        assert read_status(reference.folder / "killed").state == "killed"
    done = reference.run("killed", *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert "resumed after round" in done.stdout
    assert reference.result("killed") == reference.result("whole")


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(reference: CommandLine, wait_for: Wait) -> None:
    folder = reference.folder / "killed-in-checkpoint"
    process = reference.start(folder.name, *ARGUMENTS)
    wait_for((folder / "checkpoints" / "round-0002.partial").exists, process)
    kill(process)
    done = reference.run(folder.name, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert reference.result(folder.name) == reference.result("whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits_with_its_own_code(
    reference: CommandLine, wait_for: Wait, number: signal.Signals
) -> None:
    name = f"stopped-{number.name}"
    process = reference.start(name, *ARGUMENTS)
    wait_for((reference.folder / name / "checkpoints" / "round-0001").exists, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == STOPPED_EXIT_CODE, err
    assert number.name in err
    assert "Traceback" not in err
    stopped = read_status(reference.folder / name)
    assert (stopped.state, stopped.num_rounds) == ("stopped", 4)
    done = reference.run(name, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "resumed" in line]
    assert len(told) == 1
    assert told[0].endswith(f"resumed after round {stopped.num_finished_rounds} of 4")
    assert read_status(reference.folder / name).state == "done"
    assert reference.result(name) == reference.result("whole")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(reference: CommandLine) -> None:
    """The newest checkpoint is cut short; the run goes on from the one before it and says so."""
    name = "damaged"
    done = reference.run(name, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    newest = reference.folder / name / "checkpoints" / "round-0004" / "shared.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    done = reference.run(name, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert "round-0004 is damaged" in done.stdout
    assert "resumed after round 3" in done.stdout
    assert reference.result(name) == reference.result("whole")


@pytest.mark.slow
def test_a_finished_run_changes_nothing(reference: CommandLine) -> None:
    before = reference.result("whole")
    done = reference.run("whole", *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert reference.result("whole") == before


@pytest.mark.slow
def test_what_a_killed_run_was_writing_goes_at_the_next_start(reference: CommandLine) -> None:
    """A run of another machine may still live: what it wrote a moment ago stays."""
    folder = reference.folder / "left"
    (folder / "checkpoints" / "clients").mkdir(parents=True)
    (folder / "checkpoints" / "round-0009.partial").mkdir()
    (folder / ".adapter.partial").mkdir()
    (folder / f".config.yaml.{socket.gethostname().partition('.')[0]}.{2**22 + 1}.partial").touch()
    shutil.copy(reference.folder / "whole" / "config.yaml", folder)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("name: whole", "name: left"))
    living = folder / ".metrics.csv.another-machine.7.partial"
    living.touch()
    done = reference.run(folder.name, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert list(folder.rglob("*.partial")) == [living]
    assert reference.result(folder.name) == reference.result("whole")
