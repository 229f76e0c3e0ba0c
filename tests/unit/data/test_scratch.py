"""Scratch files are shared while they have a name, and leave nothing behind."""

import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest

from fedlit.data.scratch import ScratchFile


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the system's temporary folder be the test's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_two_see_what_either_adds(folder: Path) -> None:
    one = ScratchFile.make()
    other = ScratchFile(one.path)
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]
    one.forget_name()
    assert [*folder.iterdir()] == []
    assert (one.append(b"abc"), other.append(b"de"), one.append(b"f")) == (0, 3, 5)
    assert one.read(0, 99) == other.read(0, 99) == b"abcdef"
    other.close()
    assert one.read(3, 2) == b"de"


def test_a_write_goes_to_its_place_and_leaves_zeros_before_it() -> None:
    file = ScratchFile.make()
    file.write(4, b"xy")
    file.write(0, b"z")
    assert file.read(0, 10) == b"z\0\0\0xy"
    assert file.append(b"end") == 6
    assert file.read(20, 4) == b""


def test_a_file_that_is_gone_is_an_error() -> None:
    file = ScratchFile.make()
    file.forget_name()
    file.forget_name()
    with pytest.raises(FileNotFoundError):
        ScratchFile(file.path)


def test_a_full_disk_is_an_error() -> None:
    file = ScratchFile.make()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._appending.fileno())
    os.dup2(full, file._file.fileno())
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        file.append(b"a")
    with pytest.raises(OSError, match="No space left"):
        file.write(0, b"a")


def add(path: Path, letter: bytes) -> None:
    file = ScratchFile(path)
    for length in range(1, 200):
        data = letter * length
        place = file.append(data)
        assert file.read(place, length) == data


def test_processes_that_add_at_once_do_not_mix() -> None:
    file = ScratchFile.make()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(file.path, letter)) for letter in (b"a", b"b", b"c")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    whole = file.read(0, 10**6)
    assert len(whole) == 3 * sum(range(1, 200))
    assert {whole.count(letter) for letter in (b"a", b"b", b"c")} == {sum(range(1, 200))}
