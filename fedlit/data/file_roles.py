"""What files call themselves, training, test or validation, and the options that they are for, filled in."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fedlit.data.paths import DATA_PATHS
from fedlit.data.table_forms import stem
from fedlit.errors import UserError

_ROLES = {
    **dict.fromkeys(("train", "training"), "data.path"),
    **dict.fromkeys(("test", "testing"), "data.test_path"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "eval"), "data.validation_path"),
}


def require_one_role(files: Sequence[Path], what: str, key: str) -> None:
    """Refuse files of which some are for training and others for testing, by their names or their folders' names."""
    roles = roles_of(files)
    first = {role: file for file, role in reversed(roles.items())}
    if len(first) > 1:
        one, other, *_ = (first[role].name for role in DATA_PATHS if role in first)
        raise UserError(
            f"{key}={what}: {one} and {other} are of different sets by their names; give "
            f"{proposal(files, files)}, or a list of the files that are one set"
        )


def roles_of(files: Sequence[Path]) -> dict[Path, str]:
    """Return the option that each file is for by the words of its name, or of its folder's where there are several."""
    with_folders = len({file.parent for file in files}) > 1
    roles: dict[Path, str] = {}
    for file in files:
        names = [stem(file), *([file.parent.name] if with_folders else [])]
        found = [[_ROLES[word] for word in re.split("[^a-z]+", name.lower()) if word in _ROLES] for name in names]
        of_name = next((roles for roles in found if roles), ["data.path"])
        roles[file] = next((role for role in of_name if role != "data.path"), "data.path")
    return roles


def proposal(files: Sequence[Path], all_files: Sequence[Path]) -> str:
    """Return the options for files of several roles, each filled in."""
    by_role: dict[str, list[Path]] = {}
    for file, role in roles_of(files).items():
        by_role.setdefault(role, []).append(file)
    return " ".join(f"{key}={_spelled(by_role[key], all_files)}" for key in DATA_PATHS if key in by_role)


def _spelled(files: Sequence[Path], all_files: Sequence[Path]) -> str:
    """Return files as a value of an option: the path of one, a pattern that finds these alone, or a list."""
    texts = [file.as_posix() for file in files]
    if len(texts) == 1:
        return _quoted(texts[0])
    first, last = min(texts), max(texts)
    num_front = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    backward = [text[::-1] for text in texts]
    first, last = min(backward), max(backward)
    num_back = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    num_back = min([num_back, *(len(text) - num_front for text in texts)])
    pattern = f"{texts[0][:num_front]}*{texts[0][len(texts[0]) - num_back :]}"
    others = [file.as_posix() for file in all_files if file not in files]
    if "/" not in texts[0][num_front : len(texts[0]) - num_back] and not _found_by(pattern, others):
        return f"'{pattern}'"
    return f"'[{','.join(texts)}]'"


def _found_by(pattern: str, names: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern.replace("[", "[[]")) for name in names)


def _quoted(text: str) -> str:
    return f"'{text}'" if re.search(r"[^\w./+-]", text) else text
