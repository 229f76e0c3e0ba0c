"""A run folder that cannot be made, files and folders in one another's place: one line before anything is read."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedlit.config import LoggingConfig, RunConfig, RunFolderConfig, load_config, run_folder
from fedlit.errors import UserError
from fedlit.inputs import gather_inputs
from fedlit.store import layout
from fedlit.store.folder import RunFolder
from fedlit.store.layout import FILES, FOLDERS, make_folder, read_run_id, require_layout, require_place


def config(folder: str, name: str = "mine", *, wandb: str = "disabled", dry_run: bool = False) -> RunConfig:
    return RunConfig(run=RunFolderConfig(dir=folder, name=name), logging=LoggingConfig(wandb=wandb), dry_run=dry_run)


def refusal(asked: RunConfig) -> str:
    """Return the line with which a run is refused; it is told before its rows are read."""
    with pytest.raises(UserError) as caught:
        gather_inputs(dataclasses.replace(asked, data=dataclasses.replace(asked.data, source="nothing reads this")))
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) <= 400
    return line


def file_in_the_way(folder: Path) -> RunConfig:
    (folder / "runs").write_text("")
    return config(str(folder / "runs"))


def file_as_the_folder(folder: Path) -> RunConfig:
    (folder / "mine").write_text("")
    return config(str(folder))


def dangling_link(folder: Path) -> RunConfig:
    (folder / "mine").symlink_to(folder / "gone")
    return config(str(folder))


def link_to_itself(folder: Path) -> RunConfig:
    (folder / "runs").symlink_to(folder / "runs")
    return config(str(folder / "runs"))


PLACES: dict[str, tuple[Callable[[Path], RunConfig], str]] = {
    "a file in the way": (file_in_the_way, "(Not a directory)"),
    "a file as the folder": (file_as_the_folder, "mine is no folder)"),
    "a dangling link": (dangling_link, "mine is a link to nothing)"),
    "a link to itself": (link_to_itself, "(Too many levels of symbolic links)"),
    "a long name": (lambda folder: config(str(folder), "x" * 300), "(File name too long)"),
    "a long name below a new folder": (lambda folder: config(str(folder / "new"), "x" * 300), "a name of 300 bytes"),
    "a long path": (lambda folder: config(str(folder) + "/x" * 3000), "(File name too long)"),
    "a zero byte": (lambda folder: config(str(folder) + "/a\0b"), "(embedded null byte)"),
    "no such user": (lambda _: config("~nobody-of-this-name/runs"), "there is no such user"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_folder_that_cannot_be_made_is_one_line(place: str, tmp_path: Path) -> None:
    asked, reason = PLACES[place]
    before = sorted(tmp_path.rglob("*"))
    made = asked(tmp_path)
    line = refusal(made)
    assert reason in line
    if "user" not in place:
        assert line.startswith("the run folder ")
        assert line.endswith("; choose another run.dir or run.name")
    assert len(sorted(tmp_path.rglob("*"))) - len(before) <= 1


def test_a_folder_of_somebody_else_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout.os, "access", lambda path, mode: path != tmp_path)  # type: ignore[attr-defined]
    assert f"({tmp_path} is read-only for this user)" in refusal(config(str(tmp_path / "runs")))
    RunFolder(config(str(tmp_path / "runs"), dry_run=True)).require_place()  # a dry run makes none


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    require_place(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_is_lost_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(UserError, match=r"cannot be made \(No space left"):
        make_folder(tmp_path / "new")


@pytest.mark.parametrize("name", FILES)
def test_a_folder_where_a_file_belongs_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine" / name).mkdir(parents=True)
    assert (
        refusal(config(str(tmp_path)))
        == f"{layout._short(tmp_path / 'mine' / name)} is a folder where a run keeps a file; move it away"
    )


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_file_where_a_folder_belongs_is_one_line(name: str, dangling: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("gone") if dangling else path.write_text("")
    with pytest.raises(UserError, match="is a file where a run keeps a folder; move it away"):
        require_layout(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\xfe", b"x" * (1 << 20), b"just a text", b"[1, 2]", b"a: [", b"\0"),
        *(b"method: []\n", b"seed: two\n", b"another: 1\n"),
    ],
)
def test_a_damaged_configuration_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_bytes(content)
    assert "config.yaml" in refusal(config(str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"\n", b"a b", b"../../x", b"\xff", b"x" * 4000, b"a\nb", b"a#b"])
def test_a_damaged_run_id_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "wandb" / "run_id"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert f"{layout._short(path)} " in refusal(config(str(tmp_path), wandb="offline"))
    RunFolder(config(str(tmp_path))).require_place()  # nobody asks for it
    path.write_bytes(b"0123456789ab\n")
    assert read_run_id(path) == "0123456789ab"
    assert read_run_id(path.with_name("none")) is None


def test_the_home_folder_is_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder(config("~/runs")) == tmp_path / "runs" / "mine"
    (tmp_path / "rows.jsonl").write_text("")
    load_config(["data.path=~/rows.jsonl"])
    for argument in ("data.path=~nobody-of-this-name/x", "model.path=~nobody-of-this-name/x"):
        with pytest.raises(UserError, match=r"is not (there|a folder)"):
            load_config([argument])
    with pytest.raises(UserError, match=r"model\.path=~/none"):
        load_config(["model.path=~/none"])


def test_a_long_path_keeps_its_ends() -> None:
    short = layout._short(Path("/" + "x" * 3000 + "/mine/config.yaml"))
    assert len(short) <= 100
    assert short.startswith("/xxx")
    assert short.endswith("/mine/config.yaml")
    assert layout._short(Path(os.sep)) == "/"
