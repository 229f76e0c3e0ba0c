"""A disk that is full: one line, a status, nothing left behind, and the same command goes on when there is room."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SMALL, ForkedRun, Zygote, merge

from fedlit.commands.endings import USER_ERROR_EXIT_CODE
from fedlit.process.interrupt import LOST_PEER_EXIT_CODE
from fedlit.store.status import stored_status

LONG = ["num_rounds=200", "eval.every=200"]

PLUGIN = '''
"""Refuses what is written to files with a word in their names, as a full disk does."""

import builtins
import errno
import io
import os
import pathlib

WORD = os.environ["FULL_DISK_FOR"]
_open = io.open


class Full:
    def __init__(self, file):
        self._file = file

    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    writelines = write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


def refusing(path, mode="r", *arguments, **options):
    file = _open(path, mode, *arguments, **options)
    return Full(file) if set(mode) & set("wax") and WORD in str(path) else file


io.open = builtins.open = refusing
'''


def wait(run: ForkedRun) -> list[int | None]:
    deadline = time.monotonic() + 120
    while None in (codes := run.exit_codes()):
        assert time.monotonic() < deadline, run.output()
        time.sleep(0.02)
    return codes


def told(text: str) -> str:
    """Return the only line that tells of an error."""
    assert "Traceback" not in text, text
    (line,) = (line for line in text.splitlines() if line.startswith("error: "))
    assert len(line) <= 400
    return line


WRITERS = {
    "lock": ".lock-",
    "status": ".status.json.",
    "configuration": ".config.yaml.",
    "environment": ".environment.json.",
    "partition": ".partition.json.",
    "record": "metrics.jsonl",
    "manifest": "manifest.json",
    "client": ".client-00001-round-0001.pt.",
    "table": ".metrics.csv.",
    "adapter": "adapter_config.json",
    "W&B run id": ".run_id.",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_of_a_run_tells_it_in_one_line(writer: str, zygote: Zygote) -> None:
    (zygote.folder / "full_disk.py").write_text(PLUGIN)
    name = f"full-{writer.replace(' ', '-')}"
    extra = ["plugins=[full_disk]", "method=fedsa_lora", "num_rounds=1", "logging.loggers=[csv]"]
    if writer == "W&B run id":
        extra = [*extra[:-1], "logging.wandb=offline"]
    words = [*merge(SMALL, tuple(extra)), f"run.dir={zygote.folder}", f"run.name={name}"]
    output = zygote.folder / f"{name}.txt"
    environment = {"FULL_DISK_FOR": WRITERS[writer], "PYTHONPATH": str(zygote.folder)}
    pid = zygote._ask({"start": words, "environment": environment, "output": str(output)})["pid"]
    run = ForkedRun([pid], [output], zygote._ask)
    assert wait(run) == [USER_ERROR_EXIT_CODE], run.output()
    line = told(run.output())
    folder = zygote.folder / name
    assert f"{folder}" in line
    assert "cannot be written (No space left on device)" in line
    status = stored_status(folder)
    assert status is None or status.state == "failed"
    assert not [path for path in folder.rglob("*.partial") if not path.name.startswith(".status")]
    assert not (folder / "lock.json").exists()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a folder of a file system of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.getuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@pytest.mark.parametrize("num_processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_disk_that_fills_up_stops_a_run_that_goes_on_later(num_processes: int, small: Path, zygote: Zygote) -> None:
    name = f"filled-{num_processes}"
    zygote.folder.joinpath(name).symlink_to(small)
    words = merge(SMALL, tuple(LONG))
    folder = zygote.folder / name
    run = zygote.start(name, *words, num_processes=num_processes)
    run.wait_until((folder / "checkpoints" / "round-0002").exists)
    fill(small / "filler")
    codes = wait(run)
    # Process 1 has files of its own: it may meet the full disk itself.
    assert codes[0] == USER_ERROR_EXIT_CODE, run.output()
    assert set(codes) <= {USER_ERROR_EXIT_CODE, LOST_PEER_EXIT_CODE}, run.output()
    assert str(folder) in told(run.outputs[0].read_text())
    status = stored_status(folder)
    assert status is not None
    assert status.state == "failed"
    assert "No space left on device" in status.reason
    assert not list(folder.rglob("*.partial"))
    (small / "filler").unlink()
    number = max(int(path.name[-4:]) for path in (folder / "checkpoints").glob("round-????"))
    assert number >= 2
    later = zygote.start(name, *words, num_processes=num_processes)
    later.wait_until((folder / "checkpoints" / f"round-{number + 2:04d}").exists)
    for pid in later.pids:
        os.kill(pid, signal.SIGTERM)
    wait(later)
    assert f"resumed after round {number}" in later.output()
