"""Where images come from: a folder with a folder for each class, an .npz file, scikit-learn's digits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlit.config.schema import DataConfig
from fedlit.data.images import ImageFile, Pixels, digest_of_file, reason
from fedlit.data.json_files import require_no_pointer
from fedlit.data.paths import given_paths
from fedlit.errors import UserError

Record = tuple[str, Any]  # (the place to name in an error, what stands there)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of image files, in lower case."""

_TRAINING, _TESTING = ("train", "training"), ("test", "testing", "valid", "validation", "val")  # the first is taken
_SPLITS = {*_TRAINING, *_TESTING}
_SYSTEM_NAMES = ("Thumbs.db", "desktop.ini", "__MACOSX")  # what operating systems and their zip programs leave behind


def open_images(config: DataConfig, key: str = "data.path") -> tuple[str, Iterator[Record]]:
    """Return the name of `data.path`, a folder or an .npz file, for errors, and its records; `key` is the option that
    named it.

    Folder: its folders are the classes, in the order of their names, and every file in them is an image; hidden files
    are passed over, and so are files beside the class folders that are no images (a readme, a licence). The record
    holds the image and the name of its class. Every file is decoded once, to find those that cannot be.

    .npz: `images` (n, H, W) or (n, H, W, 3) of uint8 and `labels` (n,), integers or names. With `label_names` (k,)
    labels are positions in it, and the record holds the name. Further arrays (n,) of numbers or texts are columns of
    their own; others are not read.

    Raises:
        UserError: the file, image or array that is wrong, and what to do about it.
    """
    if config.path is None:
        raise UserError("data.source=images without a place; give data.path=<folder> or data.path=<file>.npz")
    place = given_paths(config.path)[0]
    path = Path(place).expanduser()
    if path.is_dir():
        return place, _read_folder(path, config, key)
    if not path.exists():
        raise UserError(f"{key}={place}: no such file or folder; check the path")
    if path.suffix != ".npz":
        raise UserError(
            f"{key}={place}: neither a folder nor an .npz file; give a folder with one folder for each "
            "class, or an .npz file with the arrays images and labels"
        )
    return place, _read_npz(path, config, key)


def open_digits(config: DataConfig) -> tuple[str, Iterator[Record]]:
    """Return scikit-learn's 1,797 images of digits, 8 x 8, their 17 grey levels spread over 0..255."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow, and needed for this source only)

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    columns: dict[str, list[Any]] = {config.image: list(images), config.target: data.target.tolist()}
    return "digits", _records("digits", columns)


def _read_folder(path: Path, config: DataConfig, key: str) -> Iterator[Record]:
    entries = _entries(path)
    _require_no_splits(entries, path, key)
    stray = [entry for entry in entries if not entry.is_dir() and entry.suffix.lower() in SUFFIXES]
    if stray:
        raise UserError(f"{stray[0]}: an image beside the class folders; put it into the folder of its class")
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise UserError(f"{key}={path}: no folder in it; make one folder for each class, named after it")
    for folder in classes:
        for file in _image_files(folder):
            content = digest_of_file(str(file))
            yield str(file), {config.image: ImageFile(str(file), content), config.target: folder.name}


def _require_no_splits(entries: Sequence[Path], path: Path, key: str) -> None:
    """Refuse a folder whose folders are the parts of a data set, with those of the classes in them."""
    parts = {entry.name.lower(): entry for entry in entries if entry.is_dir() and entry.name.lower() in _SPLITS}
    train = next((parts[name] for name in _TRAINING if name in parts), None)
    test = next((parts[name] for name in _TESTING if name in parts), None)
    if train is None or test is None or not any(entry.is_dir() for entry in _entries(train)):
        return
    raise UserError(
        f"{key}={path}: holds the folders {train.name} and {test.name}, each with its class folders; give "
        f"data.path={train} data.test_path={test}"
    )


def _image_files(folder: Path) -> list[Path]:
    """Return the images of one class."""
    entries = _entries(folder)
    if not entries:
        raise UserError(f"{folder}: a class without an image; put its images there or remove the folder")
    folders = [entry for entry in entries if entry.is_dir()]
    if folders:
        raise UserError(
            f"{folder}: holds the folder {folders[0].name!r}, where images of one class are expected; give the folder "
            f"above the class folders (data.path={folder}, say, and data.test_path= for a test set), or move the files"
        )
    others = [entry for entry in entries if entry.suffix.lower() not in SUFFIXES]
    if others:
        raise UserError(
            f"{others[0]}: no image by its ending, as {len(others)} of {len(entries)} files in {folder.name}; move "
            f"such files out, or convert them ({', '.join(SUFFIXES)} are read)"
        )
    return entries


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden, by name."""
    try:
        found = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; check the folder's permissions") from error
    return sorted((entry for entry in found if entry.name not in _SYSTEM_NAMES), key=lambda entry: entry.name)


def _read_npz(path: Path, config: DataConfig, key: str) -> Iterator[Record]:
    arrays = _load_arrays(path, key)
    for name in ("images", "labels"):
        if name not in arrays:
            raise UserError(f"{path}: no array {name!r} among {sorted(arrays)}; save images and labels by these names")
    images, labels = _checked_images(arrays["images"], path), arrays["labels"]
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise UserError(
            f"{path}: labels are {labels.shape} of {labels.dtype}; give one integer or one name for each image"
        )
    if len(images) != len(labels):
        raise UserError(f"{path}: {len(images)} images but {len(labels)} labels; give one label for each image")
    targets = labels.tolist() if "label_names" not in arrays else _named(labels, arrays["label_names"], path)
    columns: dict[str, list[Any]] = {config.image: list(images), config.target: targets}
    for name, array in arrays.items():
        is_column = array.shape == labels.shape and array.dtype.kind in "biufU"
        if name not in ("images", "labels", "label_names") and is_column:
            if name in columns:
                raise UserError(f"{path}: the array {name!r} has the name of data.image or data.target; rename it")
            columns[name] = array.tolist()
    yield from _records(str(path), columns)


def _load_arrays(path: Path, key: str) -> dict[str, NDArray[Any]]:
    try:
        require_no_pointer(path, f"{key}={path}")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except UserError:
        raise
    except Exception as error:  # a broken zip fails in many ways; NumPy refuses arrays of objects with a ValueError
        raise UserError(
            f"{key}={path}: cannot be read as an .npz file ({reason(error)}); fetch it again, or save plain "
            "arrays with numpy.savez"
        ) from error


def _checked_images(images: NDArray[Any], path: Path) -> Pixels:
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not shaped or 0 in images.shape[1:]:
        raise UserError(
            f"{path}: images are {images.shape} of {images.dtype}; save them as (n, H, W) or (n, H, W, 3) of uint8"
        )
    return images


def _named(labels: NDArray[Any], names: NDArray[Any], path: Path) -> list[str]:
    """Return the label of every image by name."""
    if names.ndim != 1 or names.dtype.kind != "U" or labels.dtype.kind == "U":
        raise UserError(
            f"{path}: label_names are {names.shape} of {names.dtype} and labels of {labels.dtype}; "
            "give a list of texts, and labels that are positions in it"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(outside):
        first = int(outside[0])
        raise UserError(
            f"{path}, image {first}: label {labels[first]} but there are {len(names)} label_names; labels go from 0 to "
            f"{len(names) - 1}"
        )
    return [str(names[label]) for label in labels]


def _records(source: str, columns: dict[str, list[Any]]) -> Iterator[Record]:
    """Yield the rows of columns of one length."""
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        yield f"{source}, image {i}", dict(zip(columns, values, strict=True))
