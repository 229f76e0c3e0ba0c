"""What a script prints goes nowhere, into a closed pipe or onto a full disk: one line at most, and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SMALL, CommandLine, environment, merge

from fedlit.commands.endings import CLOSED_CONSOLE_EXIT_CODE, USER_ERROR_EXIT_CODE
from fedlit.process.interrupt import STOPPED_EXIT_CODE
from fedlit.store.status import read_status

EXPERIMENTS = REPOSITORY / "experiments"
PRINTING = {
    "options": ["federate.py", "--help"],
    "a dry run": ["federate.py", "dry_run=true"],
    "sweeps": ["sweep.py", "list"],
    "a cell": ["sweep.py", "show", "demo", "0"],
    "options of a script": ["report.py", "--help"],
}


def ends(words: list[str], stdout: object, folder: Path) -> tuple[int, str]:
    """Run a script with its output led elsewhere; return its exit code and what it says beside it."""
    command = [sys.executable, str(EXPERIMENTS / words[0]), *words[1:]]
    # argparse passes over an error at once; most people's output is buffered.
    buffered = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, cwd=folder, env=buffered, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )  # type: ignore[call-overload]
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done.returncode, "\n".join(line for line in done.stderr.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize("what", PRINTING)
def test_a_closed_pipe_ends_a_script_without_a_word(what: str, tmp_path: Path) -> None:
    reader = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    reader.wait()  # as `head` after its lines
    assert ends(PRINTING[what], reader.stdin, tmp_path) == (CLOSED_CONSOLE_EXIT_CODE, "")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
@pytest.mark.parametrize("what", PRINTING)
def test_a_full_disk_under_the_output_is_one_line(what: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        code, told = ends(PRINTING[what], full, tmp_path)
    assert code == USER_ERROR_EXIT_CODE, told
    (line,) = told.splitlines()
    assert "No space left on device" in line
    if what != "options":  # so long a text that it is refused before its end, by an error that names nothing
        assert line.startswith("error: the output cannot be written")


@pytest.mark.slow
def test_a_run_whose_reader_goes_stops_and_goes_on(command_line: CommandLine, tmp_path: Path) -> None:
    words = [*merge(SMALL, ("num_rounds=300", "eval.every=300")), f"run.dir={tmp_path}", "run.name=read"]
    run = subprocess.Popen(
        [sys.executable, str(EXPERIMENTS / "federate.py"), *words],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    for line in run.stdout:
        if line.startswith("round   1"):
            break
    run.stdout.close()
    told = run.stderr.read()
    assert run.wait(60) == STOPPED_EXIT_CODE, told
    assert "Traceback" not in told
    assert "stopped: the end of whoever read the console after round " in told
    status = read_status(tmp_path / "read")
    assert status.state == "stopped"
    assert 1 <= status.num_finished_rounds < 300


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_tables_onto_a_full_disk_are_one_line(command_line: CommandLine, tmp_path: Path) -> None:
    done = command_line.run("scored", "num_rounds=1")
    assert done.returncode == 0, done.stderr
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    for words in (["report.py", "--no-figures"], ["dashboard.py"]):
        command = [
            sys.executable,
            str(EXPERIMENTS / words[0]),
            str(tmp_path / "scored"),
            f"--output={full}",
            *words[1:],
        ]
        told = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert told.returncode == USER_ERROR_EXIT_CODE, told.stderr
        assert "Traceback" not in told.stderr
        assert told.stderr.splitlines()[-1].startswith("error: ")
        assert str(full) in told.stderr
    assert full.is_symlink()
    assert Path("/dev/full").is_char_device()
