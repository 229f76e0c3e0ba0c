"""How folders of images lie on a disk: which of them, or which .npz files, each hold one set with classes of its own.

A set is an .npz file, a folder whose folders are the classes, or a folder with a metadata file. A folder may hold
several sets, one for each client; a list or a pattern names several too. What is laid out otherwise is refused, with
the options that read it.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.errors import UserError
from fedlit.lines import MAX_LINE_CHARACTERS

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of image files, in lower case."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of files that say of every image of a folder what it shows."""

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_SYSTEM_NAMES = ("Thumbs.db", "desktop.ini", "__MACOSX")  # what operating systems and their zip programs leave behind
_PARTS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "valset"), "validation"),
}
_OPTIONS = {"train": "data.path", "test": "data.test_path", "validation": "data.validation_path"}


@dataclass(frozen=True, slots=True)
class ImageSet:
    """One .npz file or folder of images. name: of the client whose it is under `partition.name=files`."""

    path: Path
    name: str


def image_sets(places: Sequence[str], key: str, *, by_file: bool) -> list[ImageSet]:
    """Return the sets that an option names, in its order, those of a pattern or a folder by name.

    Args:
        places: paths and patterns.
        key: the option that named them, for errors.
        by_file: each set is a client's, and a folder may hold several.

    Raises:
        UserError: nothing is there, or it lies otherwise than a set does; the message has the options that read it.
    """
    paths: list[Path] = []
    for place in places:
        path = Path(place).expanduser()
        found = _inside(path, key, by_file=by_file) if path.is_dir() else _matches(place, path, key)
        if key == "data.path" and len(found) > 1:
            _require_no_test_set(found, place)
        paths += found
    resolved = [path.resolve() for path in paths]
    twice = next((path for path, real in zip(paths, resolved, strict=True) if resolved.count(real) > 1), None)
    if twice is not None:
        raise UserError(f"{key}: {twice} is named twice; leave one out")
    return [ImageSet(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden, by name."""
    try:
        found = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; check the folder's permissions") from error
    return sorted((entry for entry in found if entry.name not in _SYSTEM_NAMES), key=lambda entry: entry.name)


def metadata_file(folder: Path) -> Path | None:
    """Return the file that says what the images of a folder show; None if there is none."""
    found = [path for name in METADATA if (path := folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{folder}: holds {found[0].name} and {found[1].name}; keep one")
    return found[0] if found else None


def is_image(path: Path) -> bool:
    """Tell whether a file has the ending of an image."""
    return path.suffix.lower() in SUFFIXES


def _matches(place: str, path: Path, key: str) -> list[Path]:
    """Return what a path that is no folder names: an .npz file, or what matches a pattern."""
    if path.exists():
        _require_set(path, key)
        return [path]
    if not glob.has_magic(place):
        raise UserError(f"{key}={place}: no such file or folder; check the path")
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207  no hidden files
    found = [match for match in matches if match.is_dir() or match.suffix == ".npz"]
    if not found:
        told = f", and {matches[0].name} is neither" if matches else ""
        raise UserError(f"{key}={place}: matches no folder and no .npz file{told}; check the pattern")
    for match in found:
        _require_set(match, key)
    return found


def _inside(folder: Path, key: str, *, by_file: bool) -> list[Path]:
    """Return the sets of a folder: itself, or those that it holds."""
    entries = visible(folder)
    folders = [entry for entry in entries if entry.is_dir()]
    arrays = [entry for entry in entries if entry.suffix == ".npz"]
    if arrays and not folders and not any(map(is_image, entries)):
        return arrays
    if not by_file or metadata_file(folder) or not folders or _splits(folders) or not all(map(_is_set, folders)):
        _require_set(folder, key)
        return [folder]
    if all("train" in _splits(_folders(inner)) for inner in folders):
        raise _refusal(key, folder, _told_outer(folder, folders, key))
    for inner in folders:
        _require_set(inner, key)
    return folders


def _require_set(path: Path, key: str) -> None:
    """Refuse what is no set of its own."""
    if not path.is_dir():
        if path.suffix.lower() in _ARCHIVES:
            raise UserError(f"{key}={path}: an archive; unpack it and give the folder with the class folders")
        if path.suffix != ".npz":
            raise UserError(
                f"{key}={path}: neither a folder nor an .npz file; give a folder with one folder for each "
                "class, or an .npz file with the arrays images and labels"
            )
        return
    if metadata_file(path) is not None:
        return
    entries = visible(path)
    folders = [entry for entry in entries if entry.is_dir()]
    if splits := _splits(folders):
        raise _refusal(key, path, _told_splits(splits, key))
    images = [entry for entry in entries if not entry.is_dir() and is_image(entry)]
    if images and folders:
        raise UserError(f"{images[0]}: an image beside the class folders; put it into the folder of its class")
    if images:
        raise _refusal(key, path, _told_flat(path, entries, len(images)))
    if not folders:
        packed = next((entry.name for entry in entries if entry.suffix.lower() in _ARCHIVES), None)
        remedy = "make one folder for each class, named after it" if packed is None else f"unpack {packed}"
        raise UserError(f"{key}={path}: no folder in it; {remedy}")
    outer = [folder for folder in folders if _is_set(folder)]
    if len(outer) == len(folders):
        raise _refusal(key, path, _told_outer(path, folders, key))
    if outer:
        other = next(folder for folder in folders if folder not in outer)
        raise UserError(
            f"{key}={path}: its folder {outer[0].name} holds folders and {other.name} holds none; a class is a folder "
            "of images and a client a folder of classes: move one kind out"
        )
    if len(folders) == 1 and (tables := _tables(entries)):
        raise UserError(
            f"{key}={path}: one folder of images, {folders[0].name}, and no other class; if {tables[0]} tells the "
            f"classes, name it {METADATA[0]}, its columns file_name ({folders[0].name}/...) and label"
        )


def _refusal(key: str, path: Path, told: str) -> UserError:
    """Return what to tell of a folder; of a long path, which the proposals repeat, in short."""
    if len(f"{key}={path}: {told}") > MAX_LINE_CHARACTERS:
        told = f"{told.replace(f'{path}/', 'DIR/')} (DIR: that folder)"
    return UserError(f"{key}={path}: {told}")


def _is_set(folder: Path) -> bool:
    """Tell whether a folder holds class folders, or images with a metadata file; what is in these is seen later."""
    return metadata_file(folder) is not None or (
        not any(map(is_image, entries := visible(folder))) and any(entry.is_dir() for entry in entries)
    )


def _folders(path: Path) -> list[Path]:
    return [entry for entry in visible(path) if entry.is_dir()]


def _tables(entries: Sequence[Path]) -> list[str]:
    return [entry.name for entry in entries if entry.suffix.lower() in (".csv", ".jsonl", ".parquet", ".tsv")]


def _part(path: Path) -> str | None:
    """Return which part of a data set a folder or file is by its name, such as `Train`, `test_set` or `seg_train`."""
    words = re.split("[^a-z]+", path.name.lower().removesuffix(".npz"))
    found = {_PARTS[word] for word in words if word in _PARTS}
    return found.pop() if len(found) == 1 else None


def _splits(folders: Sequence[Path]) -> dict[str, Path]:
    """Return training, test and validation set by name, where folders are these; none where they are something else.

    A folder of images alone is a class, of whatever name.
    """
    named = {part: folder for folder in reversed(folders) if (part := _part(folder)) is not None}
    parts = {part: folder for part, folder in named.items() if _is_set(folder)}
    is_plain = any(folder.name.lower() in _PARTS for folder in parts.values())
    return parts if len(parts) > 1 or (is_plain and len(folders) > 1) else {}


def _told_splits(splits: dict[str, Path], key: str) -> str:
    names = " and ".join(splits[part].name for part in _OPTIONS if part in splits)
    if "train" not in splits:
        return (
            f"holds {names}, by name no training set; give the folder of the training images with data.path=, and "
            f"{_OPTIONS[next(iter(splits))]}={next(iter(splits.values()))}"
        )
    if key != "data.path":
        part = {"data.test_path": "test", "data.validation_path": "validation"}.get(key, "train")
        return f"holds {names}; give {key}={splits.get(part, splits['train'].parent / '<folder>')}"
    if "test" not in splits and "validation" in splits:
        splits = {"train": splits["train"], "test": splits["validation"]}
    given = " ".join(f"{_OPTIONS[part]}={splits[part]}" for part in _OPTIONS if part in splits)
    what = "folder" if len(splits) == 1 else "folders"
    return f"holds the {what} {names}, each with its class folders; give {given}"


def _told_flat(path: Path, entries: Sequence[Path], num_images: int) -> str:
    tables = _tables(entries)
    remedy = "put each into a folder of its class, or write a metadata.csv with file_name and label beside them"
    if tables:
        remedy = f"if {tables[0]} tells the classes, name it {METADATA[0]}, its columns file_name and label"
    return f"{num_images} images and no class folders; {remedy}"


def _told_outer(path: Path, folders: Sequence[Path], key: str) -> str:
    """Return what to do about a folder whose folders hold sets."""
    shown = ", ".join(folder.name for folder in folders[:3]) + (", ..." if len(folders) > 3 else "")
    splits = [_splits(_folders(folder)) for folder in folders]
    if len(folders) == 1:
        if splits[0]:
            return f"its folder {shown} {_told_splits(splits[0], key)}"
        return f"holds one folder, {shown}, and the classes are in it; give {key}={folders[0]}"
    if all("train" in parts for parts in splits):
        test = "test" if all("test" in parts for parts in splits) else "validation"
        names = {part: splits[0][part].name for part in ("train", test) if all(part in parts for parts in splits)}
        given = " ".join(f"{_OPTIONS.get(part)}='{path}/*/{name}'" for part, name in names.items())
        given = given.replace(_OPTIONS["validation"], _OPTIONS["test"])
        return (
            f"its folders ({shown}) each hold a training set; give partition.name=files num_clients={len(folders)} "
            f"{given}"
        )
    if key != "data.path":
        return f"its folders ({shown}) hold folders of their own; give {key}='{path}/*' to read them as one set"
    inner = [{entry.name for entry in _folders(folder)} for folder in folders]
    clients = f"give partition.name=files num_clients={len(folders)} to make each a client"
    together = f"{key}='{path}/*' to read them as one set"
    if sum(map(len, inner)) > len(set().union(*inner)):
        return f"its folders ({shown}) hold the same class folders, as those of clients do; {clients}, or {together}"
    return (
        f"its folders ({shown}) hold folders; give {key}='{path}/*' if the inner ones are the classes, or "
        f"{clients.removeprefix('give ')}"
    )


def _require_no_test_set(paths: Sequence[Path], place: str) -> None:
    """Refuse what would take a test set for training rows."""
    parts = {part: path for path in reversed(paths) if (part := _part(path)) is not None}
    tested = parts.get("test") or parts.get("validation")
    if tested is not None and (len(parts) > 1 or tested.name.lower().removesuffix(".npz") in _PARTS):
        train = parts.get("train", "<training set>")
        raise UserError(
            f"data.path={place}: takes {tested.name}, a test set by its name, for training; give data.path={train} "
            f"data.test_path={tested}"
        )


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path: its last part or, where two have one, the parts in which the paths differ."""
    last = [path.name.removesuffix(".npz") or str(path) for path in (path.absolute() for path in paths)]
    if len(set(last)) == len(last):
        return last
    split = [path.absolute().parts for path in paths]
    start, end = (next(_differing(rows), 0) for rows in (split, [parts[::-1] for parts in split]))
    names = ["/".join(parts[start : len(parts) - end]).removesuffix(".npz") for parts in split]
    return names if all(names) and len(set(names)) == len(names) else list(map(str, paths))


def _differing(rows: Sequence[Sequence[str]]) -> Iterator[int]:
    """Yield the positions at which rows differ."""
    yield from (i for i, parts in enumerate(zip(*rows, strict=False)) if len(set(parts)) > 1)
