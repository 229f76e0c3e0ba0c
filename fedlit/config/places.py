"""Where configurations are found: by name in the folders of the search path, or by the path of a file.

The search path is FEDLIT_CONFIG_PATH (folders with os.pathsep between them), then the shipped folder; the first file of
a name wins. The command line's --config-dir puts a folder at its front for this process and all that it starts. A name
that ends in .yaml or .yml is a path: seen from the working folder where it stands on the command line, from the file's
own folder where it stands in a file.
"""

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedlit.config.keys import nearest, show
from fedlit.config.reading import is_there, parse_yaml, read_file, require_text
from fedlit.errors import UserError
from fedlit.outside.loading import find_recipe
from fedlit.process.storage import user_path
from fedlit.registry import recipe_options, shown_origin
from fedlit.shipped import shipped

CONFIG_DIR = shipped("configs")

COMMAND_LINE = "command line"

VARIABLE = "FEDLIT_CONFIG_PATH"
OPTION = "--config-dir"

FOLDERS = ("data", "model", "method", "experiment", "sweep", "published")
"""What a folder of configurations may hold; one of them at least."""

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class GroupFile:
    """One parsed YAML file.

    origin: its name in messages: configs/<group>/<choice>.yaml of a shipped one, else its path. folder: from which the
    paths of other configurations in it are seen; None for the working folder. named: it is the choice of a group, not
    given by its path.
    """

    origin: str
    content: Mapping[str, Any]
    folder: Path | None = None
    named: bool = False


def is_file_name(word: str) -> bool:
    """Tell whether a word is the path of a configuration: by its suffix. `data=x.yaml` is none, `./a=b/x.yaml` is."""
    key, equals, _ = word.partition("=")
    return word.endswith(SUFFIXES) and (not equals or "/" in key)


def take_config_dirs(words: Sequence[str], environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Put the folders of `--config-dir DIR` at the front of the search path, and return the other words.

    It goes into the environment, so that every process of a run, and every cell of a sweep, sees the same path.

    Raises:
        UserError: no folder, or one without configurations.
    """
    others: list[str] = []
    folders: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, equals, text = word.partition("=")
        if name != OPTION:
            others.append(word)
            continue
        text = text if equals else next(waiting, "")
        require_text(text, f"{OPTION}={show(text)} (command line)")
        folders.append(os.path.abspath(_checked(text, OPTION)))  # noqa: PTH100  links stay as the user knows them
    if folders:
        there = [entry for entry in environ.get(VARIABLE, "").split(os.pathsep) if entry and entry not in folders]
        environ[VARIABLE] = os.pathsep.join([*dict.fromkeys(folders), *there])
    return others


def config_dir_words(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the words that give another command this process's search path, for one without its environment."""
    return [f"{OPTION}={os.path.abspath(folder)}" for folder in own_folders(environ)]  # noqa: PTH100  as above


def own_folders(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the user's own folders of the search path, the first to be looked into first.

    Raises:
        UserError: one is no folder, or holds none of the groups.
    """
    return [_checked(entry, VARIABLE) for entry in environ.get(VARIABLE, "").split(os.pathsep) if entry]


def _checked(text: str, source: str) -> Path:
    """Return a folder of the search path that `source` names."""
    named = f"{source}={show(text)}"
    if not text:
        raise UserError(f"{OPTION} needs a folder like configs/, which holds some of {', '.join(FOLDERS)}")
    if os.pathsep in text:
        raise UserError(f"{named} holds {os.pathsep!r}, which stands between folders; repeat {OPTION} for each")
    if not is_there(text, Path.is_dir):
        what = "is a file" if is_there(text) else f"is not there (seen from {Path.cwd()})"
        raise UserError(f"{named} {what}; give a folder like configs/, or leave it out")
    folder = user_path(text)
    if not any(is_there(str(folder / group), Path.is_dir) for group in FOLDERS):
        remedy = "give the folder above it" if folder.resolve().name in FOLDERS else "put your files into one of them"
        raise UserError(f"{named} holds none of the folders {', '.join(FOLDERS)}; {remedy}")
    return folder


def list_choices(config_dir: Path, group: str) -> dict[str, Path]:
    """Return the YAML files of a group by the name that picks them, `glue/cola` for one in a folder: the user's own,
    then those of `config_dir`.
    """
    if not config_dir.is_dir():
        raise UserError(f"there is no folder {config_dir}; run from a clone of the repository, which holds configs/")
    choices: dict[str, Path] = {}
    for folder in (*own_folders(), config_dir):
        for path in _files(folder / group):
            choices.setdefault(path.relative_to(folder / group).with_suffix("").as_posix(), path)
    return choices


def _files(folder: Path) -> Iterator[Path]:
    for suffix in SUFFIXES:
        yield from sorted(folder.rglob(f"*{suffix}"))


def origin_of(path: Path, config_dir: Path) -> str:
    """Return the name of a file in messages: `configs/<group>/<choice>.yaml` of one below `config_dir`, else its path,
    seen from the working folder if it lies below.
    """
    if path.is_relative_to(config_dir):
        return (config_dir.name / path.relative_to(config_dir)).as_posix()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def read_choice(
    config_dir: Path, group: str, choice: str, chosen_in: str = COMMAND_LINE, seen_from: Path | None = None
) -> GroupFile:
    """Read the file of a choice made in `chosen_in`, a name or a path; raises UserError if there is none or it is not
    a YAML mapping. seen_from: the folder of a relative path; None for the working folder.
    """
    choices = list_choices(config_dir, group)
    if choice.endswith(SUFFIXES):
        return read_path(choice, f"{group}={show(choice)} ({chosen_in})", seen_from, choices)
    if choice not in choices and group == "method" and find_recipe(choice):
        return GroupFile(shown_origin("recipe", choice), {"name": choice, **recipe_options(choice)}, named=True)
    if choice not in choices:
        meant = f"{choice}{SUFFIXES[0]}"
        near = f"; did you mean the file {meant}?" if _is_near(meant, seen_from) else nearest(choice, choices)
        raise UserError(
            f"unknown choice {group}={show(choice)} ({chosen_in}){near} Valid choices: {', '.join(choices) or 'none'}"
        )
    path = choices[choice]
    return _read(path, origin_of(path, config_dir), named=True)


def read_path(
    text: str, named: str, seen_from: Path | None = None, choices: Mapping[str, Path] | None = None
) -> GroupFile:
    """Read the file of a path; raises UserError with the nearest file, or the nearest of `choices`, if it is not there.

    named: the choice in messages.
    """
    require_text(text, named)
    path = user_path(text)
    path = path if seen_from is None else seen_from / path
    if not is_there(str(path), Path.is_file):
        what = f"is not there (seen from {seen_from or Path.cwd()})"
        if is_there(str(path)):
            inside = path / "config.yaml"
            near = f"; did you mean '{inside}'?" if is_there(str(inside)) else "; give the path of a YAML file"
            raise UserError(f"{named} is no file{near}")
        near = nearest(str(path), _beside(path))
        if near == "." and choices is not None:
            near = nearest(path.stem, choices)
        raise UserError(f"{named} {what}{near if near != '.' else '; give the path of a YAML file'}")
    return _read(path, origin_of(path, CONFIG_DIR))


def _is_near(text: str, seen_from: Path | None) -> bool:
    return is_there(str(text if seen_from is None else seen_from / text), Path.is_file)


def _beside(path: Path) -> list[str]:
    """Return the YAML files of a similar name in the folder where one was looked for."""
    try:
        others = [other for other in sorted(path.parent.iterdir()) if other.name.endswith(SUFFIXES)]
        return [str(other) for other in others if nearest(path.stem, [other.stem]) != "."]
    except OSError:
        return []


def _read(path: Path, origin: str, *, named: bool = False) -> GroupFile:
    content = _parse_file(read_file(path, origin), origin)
    if content is not None and not isinstance(content, Mapping):
        raise UserError(f"{origin} holds no mapping; write one 'key: value' on each line")
    return GroupFile(origin, content or {}, path.parent, named)


@lru_cache(maxsize=256)
def _parse_file(text: str, origin: str) -> Any:
    """Return `parse_yaml` of a file, once for each text: every cell of a sweep reads the same files.

    Nobody may change what it returns.
    """
    return parse_yaml(text, origin)
