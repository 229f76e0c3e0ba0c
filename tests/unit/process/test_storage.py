"""What a full or broken file system says, in one line; texts that are whole or not there; what dead writers left."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from fedlit.errors import UserError
from fedlit.process import storage
from fedlit.process.storage import remove_leftovers, storage_error, user_path, write_atomically

FOLDER = Path("/shared/runs/mine")


def torch_save() -> RuntimeError:
    """Return what torch.save raises when the file system is full: the OSError is its context only."""
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "whatever"), "No space left on device"),
        (OSError(errno.EDQUOT, "whatever"), "Disk quota exceeded"),
        (Exception("Error while serializing: I/O error: whatever (os error 28)"), "No space left on device"),
        (Exception("whatever (os error 122)"), "Disk quota exceeded"),
        (torch_save(), "No space left on device"),
    ],
)
def test_no_space_names_the_folder_and_the_remedy(error: Exception, reason: str) -> None:
    told = storage_error(error, FOLDER, goes_on=True)
    assert str(told) == (
        f"{FOLDER} cannot be written ({reason}); free some space or raise the quota; the same command goes on"
    )


@pytest.mark.parametrize("number", [errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_file_in_the_way_is_named(number: int) -> None:
    told = storage_error(OSError(number, "whatever", "/shared/runs/mine/plots"), FOLDER)
    assert str(told) == f"/shared/runs/mine/plots: {os.strerror(number)}; mend it, or choose another folder"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        PermissionError(errno.EPERM, "of no file"),
        FileNotFoundError(errno.ENOENT, "no such file", "x"),
        TimeoutError("timed out"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("28"),
    ],
)
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert storage_error(error, FOLDER) is None


def test_a_long_name_leaves_room_for_the_remedy() -> None:
    told = str(storage_error(OSError(errno.ENOSPC, ""), Path("/" + "x" * 3000)))
    assert len(told) <= 400
    assert told.endswith("free some space or raise the quota")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """Return a folder of a file system of 256 kB that is full but for 8 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.getuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small file system needs root")
    try:
        (folder / "fill").write_bytes(bytes(240 << 10))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


LARGE = {"w": torch.zeros(1 << 16)}


def write_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save(LARGE, file)


def write_tokenizer(path: Path) -> None:
    words = {f"word-{number}": number for number in range(1 << 15)}
    Tokenizer(models.WordLevel(words, unk_token="word-0")).save(str(path))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_atomically(path, "x" * (1 << 18)),
        lambda path: path.write_bytes(bytes(1 << 18)),
        lambda path: save_file(LARGE, path),
        write_torch,
        write_tokenizer,
    ],
    ids=["text", "bytes", "safetensors", "torch", "tokenizer"],
)
def test_every_library_says_it_on_a_really_full_disk(write: Callable[[Path], object], full: Path) -> None:
    with pytest.raises(Exception) as caught:
        write(full / "file")
    told = storage_error(caught.value, full)
    assert told is not None
    assert "No space left on device" in str(told)
    assert str(full) in str(told)


def test_a_text_that_does_not_fit_leaves_the_old_one_and_nothing_else(full: Path) -> None:
    path = full / "status.json"
    write_atomically(path, "old")
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, "x" * (1 << 18))
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert {found.name for found in full.iterdir()} == {"fill", "status.json"}


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    write_atomically(path, "a table\n")
    reader.join()
    assert read == ["a table\n"]
    assert path.is_fifo()


def test_name_and_content_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), fsync(handle)))
    write_atomically(tmp_path / "file", "text")
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


def test_only_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = storage._host()
    clients = tmp_path / "checkpoints" / "clients"
    clients.mkdir(parents=True)
    (tmp_path / "checkpoints" / "round-0003.partial").mkdir()
    (tmp_path / "checkpoints" / "round-0003.partial" / "shared.safetensors").touch()
    (tmp_path / ".adapter.partial").mkdir()
    names = {
        f".status.json.{host}.{dead.pid}.partial": False,
        f".status.json.{host}.{os.getppid()}.partial": True,
        f".status.json.{host}.{10**30}.partial": False,
        ".status.json.another.1.partial": True,
        ".metrics.csv.another.2.partial": False,
        f"checkpoints/clients/.client-00001-round-0002.pt.{host}.{dead.pid}.partial": False,
        f"checkpoints/clients/.client-00002-round-0002.pt.{host}.{os.getppid()}.partial": True,
        "checkpoints/clients/client-00001-round-0001.pt": True,
        "metrics.jsonl": True,
    }
    for name in names:
        (tmp_path / name).touch()
    long_ago_s = time.time() - 2 * storage._OLD_S
    os.utime(tmp_path / ".metrics.csv.another.2.partial", (long_ago_s, long_ago_s))
    remove_leftovers(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {name for name, stays in names.items() if stays}
    assert not list(tmp_path.rglob("*0003.partial"))
    assert not (tmp_path / ".adapter.partial").exists()


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/runs") == Path("/home/me/runs")
    assert user_path("a/~/b") == Path("a/~/b")
    with pytest.raises(UserError, match="no such user"):
        user_path("~nobody-of-this-name/runs")
