"""Which files of rows an option names: files, patterns, folders, parts of files; and what each is called as a client's.

A folder stands for the tables that lie directly in it. Where some of what a folder or a pattern finds calls itself
test, validation or training rows and some does not, nothing is guessed: the message proposes the options filled in.
"""

import glob
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.data.file_roles import proposal, require_one_role, roles_of
from fedlit.data.paths import given_paths, natural_order
from fedlit.data.table_forms import ENDINGS, form_of, other_kind, stem
from fedlit.errors import UserError

_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of `datasets`, not rows


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """A file of rows, or a folder of `save_to_disk`.

    part: what was named in it behind `#`, a key of JSON or a member of a zip archive. name: of the client that its rows
    are under `partition.name=files`.
    """

    path: Path
    part: str | None = None
    name: str = ""

    def __str__(self) -> str:
        return str(self.path) if self.part is None else f"{self.path}#{self.part}"

    @property
    def in_archive(self) -> bool:
        """Whether `part` is a member of a zip archive."""
        return self.path.suffix.lower() == ".zip"

    @property
    def form(self) -> str:
        """The form of the table; '' if its ending is none's."""
        return form_of(self.part if self.in_archive and self.part else self.path.name)


def table_files(given: str | Sequence[str], key: str) -> list[TableFile]:
    """Return the files that `given` stands for, in the natural order of their names; `key` is its option.

    Raises:
        UserError: nothing is there, a file is named twice, or what was found is for training and for testing.
    """
    found: list[TableFile] = []
    for text in given_paths(given):
        found += _found(text, key)
    seen: set[tuple[Path, str | None]] = set()
    for file in found:
        place = (file.path.resolve(), file.part)
        if place in seen:
            raise UserError(f"{key}: names {file} twice, and its rows would count twice; name it once")
        seen.add(place)
    named = [
        TableFile(path=file.path, part=file.part, name=name) for file, name in zip(found, _names(found), strict=True)
    ]
    return sorted(named, key=lambda file: natural_order(file.name))


def missing(given: str | Sequence[str]) -> str | None:
    """Return the first path or pattern that stands for nothing on this machine, None if there is none."""
    return next((text for text in given_paths(given) if not _is_there(text)), None)


def places(text: str) -> list[Path]:
    """Return the file or folder of a path that may name a part of it, or all that a pattern stands for; none if there
    is nothing.
    """
    path, _ = _split(text)
    if path.exists():
        return [path]
    return [Path(match) for match in _matches(text)] if _is_pattern(text) else []


def _is_there(text: str) -> bool:
    try:
        path, _ = _split(text)
        return path.exists() or (_is_pattern(text) and next(_matches(text), None) is not None)
    except (OSError, RuntimeError, ValueError, re.error):  # too long, in a closed folder, the home of nobody, with NUL
        return False


def _split(text: str) -> tuple[Path, str | None]:
    """Return the path and what is named behind `#`, unless the whole is the name of a file."""
    path = Path(text).expanduser()
    head, sign, part = text.rpartition("#")
    if not path.exists() and sign and head and part and Path(head).expanduser().exists():
        return Path(head).expanduser(), part
    return path, None


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _matches(text: str) -> Iterator[str]:
    return glob.iglob(str(Path(text).expanduser()), recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern


def _found(text: str, key: str) -> list[TableFile]:
    """Return the files that one entry stands for."""
    path, part = _split(text)
    if path.is_dir():
        return [TableFile(path=file) for file in _in_folder(path, key)]
    if path.exists():
        return [TableFile(path=path, part=part)]
    if not _is_pattern(text):
        raise UserError(f"{key}={text}: no such file; check the path")
    matches = sorted(map(Path, _matches(text)), key=lambda match: natural_order(match.as_posix()))
    if not matches:
        raise UserError(f"{key}={text}: no file has such a name (seen from {Path.cwd()}); check the pattern")
    files: list[Path] = []
    for match in matches:
        files += _in_folder(match, key) if match.is_dir() and "**" not in text else [match] * match.is_file()
    if not files:
        raise UserError(f"{key}={text}: folders and no file; add /*.csv, say, to the pattern")
    _require_no_other(files, key)
    tables = [file for file in files if is_dataset(file) or (form_of(file.name) and file.name not in _ABOUT)] or files
    require_one_role(tables, text, key)
    return [TableFile(path=file) for file in tables]


def is_dataset(path: Path) -> bool:
    """Tell whether a path is a folder that `Dataset.save_to_disk` has written."""
    return (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def _in_folder(folder: Path, key: str) -> list[Path]:
    """Return the tables of a folder, or the folder itself if it is a data set of its own."""
    if is_dataset(folder):
        return [folder]
    try:
        entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise UserError(f"{key}={folder}: {error.strerror}; check the folder's permissions") from error
    inner = [entry for entry in entries if entry.is_dir()]
    splits = [entry for entry in inner if is_dataset(entry)]
    if splits:
        raise UserError(f"{key}={folder}: a data set of several splits; give {proposal(splits, inner)}")
    files = [entry for entry in entries if entry.is_file() and entry.name not in _ABOUT]
    _require_no_other(files, key)
    tables = sorted(
        (file for file in files if form_of(file.name) not in ("", "text")), key=lambda file: natural_order(file.name)
    )
    if not tables:
        raise UserError(f"{key}={folder}: a folder without a table ({_contents(files, inner)}); {_instead(folder)}")
    stems = Counter(stem(file) for file in tables)
    if stems and max(stems.values()) > 1:
        both = [file for file in tables if stems[stem(file)] > 1][:2]
        raise UserError(
            f"{key}={folder}: {both[0].name} and {both[1].name} are of one name, maybe the same rows in two forms; "
            f"give {key}='{folder}/*{''.join(both[0].suffixes[-2:])}', say"
        )
    require_one_role(tables, str(folder), key)
    return tables


def _require_no_other(files: Sequence[Path], key: str) -> None:
    """Refuse what holds rows in a form that is not read, which would be left out without a word."""
    for file in files:
        if (what := other_kind(file.name)) is not None:
            raise UserError(f"{key}={file}: {what}, or give the files that are to be read")


def _contents(files: Sequence[Path], folders: Sequence[Path]) -> str:
    names = [file.name for file in files] + [f"{folder.name}/" for folder in folders]
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"it holds {shown}" if names else "it is empty"


def _instead(folder: Path) -> str:
    """Return what to give in place of a folder without a table."""
    below = sorted(folder.glob("*/*"), key=lambda file: natural_order(file.as_posix()))
    tables = [file for file in below if file.is_file() and form_of(file.name) not in ("", "text")]
    if not tables and any(form_of(file.name) == "text" for file in folder.iterdir()):
        return f"of texts give '{folder}/*.txt'"
    if not tables:
        return f"tables end in {ENDINGS}"
    if len(set(roles_of(tables).values())) > 1:
        return f"give {proposal(tables, tables)}"
    endings = {"".join(file.suffixes) for file in tables}
    names = {file.name for file in tables}
    last = names.pop() if len(names) == 1 else f"*{endings.pop()}" if len(endings) == 1 else "*"
    return f"give '{folder}/*/{last}'"


def _names(files: Sequence[TableFile]) -> list[str]:
    """Return a name for each file that no other has: its own, or with its folders', or its folders' alone where all
    files have one name.
    """
    ways = [
        [*file.path.absolute().parts[1:-1], stem(file.path), *([] if file.part is None else [file.part])]
        for file in files
    ]
    longest = max(map(len, ways), default=1)
    if len(ways) > 1 and len({way[-1] for way in ways}) == 1 and all(len(way) > 1 for way in ways):
        ways = [way[:-1] for way in ways]
    for num in range(1, longest + 1):
        names = ["/".join(way[-num:]) for way in ways]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]  # a.csv beside a.jsonl
