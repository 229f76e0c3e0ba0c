"""Where images come from: folders with a folder for each class or with a metadata file, .npz files, scikit-learn's
digits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlit.config.schema import DataConfig
from fedlit.data.image_layouts import SUFFIXES, ImageSet, image_sets, metadata_file, visible
from fedlit.data.image_metadata import described_images
from fedlit.data.images import ImageFile, Pixels, digest_of_file, reason
from fedlit.data.json_files import require_no_pointer
from fedlit.data.paths import given_paths
from fedlit.data.places import Place
from fedlit.errors import UserError

Record = tuple[str, Any]  # (the place to name in an error, what stands there)


def open_images(
    config: DataConfig,
    key: str = "data.path",
    *,
    by_file: bool = False,
    classes: dict[str, list[str]] | None = None,
) -> tuple[str, Iterator[Record]]:
    """Return the name of `data.path`, folders or .npz files, for errors, and its records; `key` is the option that
    named it. by_file: each folder or file is a client's, whose name the records' places know. classes: takes, by
    column, the names of classes in the order of their numbers, where a metadata file has both.

    Folder: its folders are the classes, in the order of their names, and every file in them is an image; hidden files
    are passed over, and so are files beside the class folders that are no images (a readme, a licence). The record
    holds the image and the name of its class. Every file is decoded once, to find those that cannot be. With a file
    metadata.csv, .jsonl or .parquet in it the folder holds the images that this names (`described_images`).

    .npz: `images` (n, H, W) or (n, H, W, 3) of uint8 and `labels` (n,), integers or names. With `label_names` (k,)
    labels are positions in it, and the record holds the name. Further arrays (n,) of numbers or texts are columns of
    their own; others are not read.

    Several: a list, a pattern, or a folder of .npz files; by_file also a folder of such folders. One after the other.

    Raises:
        UserError: the file, image or array that is wrong, and what to do about it.
    """
    if config.path is None:
        raise UserError("data.source=images without a place; give data.path=<folder> or data.path=<file>.npz")
    places = given_paths(config.path)
    sets = image_sets(places, key, by_file=by_file)
    kept = None if config.classes is not None else {} if classes is None else classes
    return ", ".join(places[:3]), _read_sets(sets, config, key, kept, by_file=by_file)


def open_digits(config: DataConfig) -> tuple[str, Iterator[Record]]:
    """Return scikit-learn's 1,797 images of digits, 8 x 8, their 17 grey levels spread over 0..255."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow, and needed for this source only)

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    columns: dict[str, list[Any]] = {config.image: list(images), config.target: data.target.tolist()}
    return "digits", _records("digits", columns)


def _read_sets(
    sets: list[ImageSet], config: DataConfig, key: str, classes: dict[str, list[str]] | None, *, by_file: bool
) -> Iterator[Record]:
    for images in sets:
        is_folder = images.path.is_dir()
        records = _read_folder(images.path, config, classes) if is_folder else _read_npz(images.path, config, key)
        for place, record in records:
            yield (Place(place, images.name) if by_file else place), record


def _read_folder(path: Path, config: DataConfig, classes: dict[str, list[str]] | None) -> Iterator[Record]:
    metadata = metadata_file(path)
    if metadata is not None:
        for place, file, columns in described_images(metadata, config.target, classes):
            if config.image in columns:
                raise UserError(f"{metadata}: the column {config.image!r} has the name of data.image; rename it")
            yield place, {config.image: _image(file), **columns}
        return
    for folder in (entry for entry in visible(path) if entry.is_dir()):
        for file in _image_files(folder):
            yield str(file), {config.image: _image(file), config.target: folder.name}


def _image(file: Path) -> ImageFile:
    return ImageFile(str(file), digest_of_file(str(file)))


def _image_files(folder: Path) -> list[Path]:
    """Return the images of one class."""
    entries = visible(folder)
    if not entries:
        raise UserError(f"{folder}: a class without an image; put its images there or remove the folder")
    folders = [entry for entry in entries if entry.is_dir()]
    if folders:
        raise UserError(
            f"{folder}: holds the folder {folders[0].name!r} beside the images of one class; move the images of "
            f"{folders[0].name!r} up, or the folder out"
        )
    others = [entry for entry in entries if entry.suffix.lower() not in SUFFIXES]
    if others:
        raise UserError(
            f"{others[0]}: no image by its ending, as {len(others)} of {len(entries)} files in {folder.name}; move "
            f"such files out, or convert them ({', '.join(SUFFIXES)} are read)"
        )
    return entries


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
