"""Images of a data set: a folder with a folder for each class, an .npz file, or cells of a hub data set.

A cell is what a row holds for its image: an array of uint8, (H, W) or (H, W, 3); an ImageFile, which is decoded each
time it is looked at, so that a large folder is never held in memory; or a PIL image, which hub data sets give.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlit.config.schema import DataConfig
from fedlit.errors import UserError

Record = tuple[str, Any]  # (the place to name in an error, what stands there)
Pixels = NDArray[np.uint8]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of image files, in lower case."""

_SYSTEM_NAMES = ("Thumbs.db", "desktop.ini", "__MACOSX")  # what operating systems and their zip programs leave behind


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that stays in its file.

    content: its digest when the folder was read; None to look each time.
    """

    path: str
    content: str | None = None


def digest(cell: Any) -> str:
    """Return the SHA-256 of what a model is shown of an image, its pixels and their arrangement.

    The same picture as an array and in a file, or grey and in three equal colours, is the same. Of anything that is no
    image, of which other columns may hold some, it is that of its type and text.
    """
    if isinstance(cell, ImageFile) and cell.content is not None:
        return cell.content
    if _is_image(cell):
        return _pixel_digest(pixels(cell))
    return hashlib.sha256(f"{type(cell).__name__} {cell}".encode(errors="surrogatepass")).hexdigest()


def pixels(cell: Any) -> Pixels:
    """Return an image as (H, W, 3) in 0..255.

    Grey becomes three equal colours, a palette its colours, and transparency is dropped. Grey values of more than 8
    bits are scaled by the image's own largest value, which becomes 255, and zero stays zero: scanners fill 12 of 16
    bits, or fewer, and the full scale of the type would leave them black. Of 16-bit colours Pillow keeps the upper
    byte. A photograph is turned as its EXIF orientation says.

    Raises:
        UserError: a file that cannot be decoded, or has several frames.
    """
    if isinstance(cell, ImageFile):
        return _decoded_file(cell.path)
    array: Pixels = cell if isinstance(cell, np.ndarray) else _decoded(cell)
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array


def check_cell(cell: Any, place: str, key: str) -> None:
    """Raise UserError for what is no image; `place` names the row and `key` the option that names the column."""
    if isinstance(cell, ImageFile):
        if cell.content is None:
            pixels(cell)
        return
    if _is_pil(cell):
        try:
            _decoded(cell)
        except Exception as error:  # a decoder may fail with anything
            raise UserError(
                f"{place}: the image of {key} cannot be decoded ({_reason(error)}); mend it or take the row out"
            ) from error
        return
    if not _is_image(cell):
        what = type(cell).__name__
        if isinstance(cell, np.ndarray):
            what = f"an array {cell.shape} of {cell.dtype}"
        raise UserError(
            f"{place}: the column of {key} holds {what}, not an image; give arrays (H, W) or (H, W, 3) of uint8, PIL "
            "images or, with data.path, a folder of image files"
        )


def open_images(config: DataConfig) -> tuple[str, Iterator[Record]]:
    """Return the name of `data.path`, a folder or an .npz file, for errors, and its records.

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
    path = Path(config.path).expanduser()
    if path.is_dir():
        return config.path, _read_folder(path, config)
    if not path.exists():
        raise UserError(f"data.path={config.path}: no such file or folder; check the path")
    if path.suffix != ".npz":
        raise UserError(
            f"data.path={config.path}: neither a folder nor an .npz file; give a folder with one folder for each "
            "class, or an .npz file with the arrays images and labels"
        )
    return config.path, _read_npz(path, config)


def open_digits(config: DataConfig) -> tuple[str, Iterator[Record]]:
    """Return scikit-learn's 1,797 images of digits, 8 x 8, their 17 grey levels spread over 0..255."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow, and needed for this source only)

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    columns: dict[str, list[Any]] = {config.image: list(images), config.target: data.target.tolist()}
    return "digits", _records("digits", columns)


def _is_pil(cell: Any) -> bool:
    from PIL import Image  # noqa: PLC0415 (needed for images only)

    return isinstance(cell, Image.Image)


def _is_image(cell: Any) -> bool:
    if isinstance(cell, np.ndarray):
        shaped = cell.ndim == 2 or (cell.ndim == 3 and cell.shape[2] == 3)
        return cell.dtype == np.uint8 and shaped and cell.size > 0
    return isinstance(cell, ImageFile) or _is_pil(cell)


def _pixel_digest(array: Pixels) -> str:
    return hashlib.sha256(f"{array.shape} ".encode() + array.tobytes()).hexdigest()


def _decoded(image: Any) -> Pixels:
    """Return a PIL image as pixels (H, W, 3); a ValueError says what is wrong with its values."""
    from PIL import ImageOps  # noqa: PLC0415 (needed for images only)

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return pixels(_scaled(np.asarray(image)))
    if "transparency" in image.info:
        image = image.convert("RGBA")  # a palette's transparent colour keeps its own colours this way
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _scaled(values: NDArray[Any]) -> Pixels:
    """Return grey values of any number type with the largest at 255."""
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all() or exact.min() < 0:
        raise ValueError("values below zero or not finite")
    largest = float(exact.max())
    scaled: Pixels = np.rint(exact * (255 / largest if largest else 0)).astype(np.uint8)
    return scaled


def _decoded_file(path: str) -> Pixels:
    from PIL import Image  # noqa: PLC0415 (needed for images only)

    try:
        with Image.open(path) as image:
            num_frames = getattr(image, "n_frames", 1)
            if num_frames > 1 and image.format != "MPO":  # the further frame of a camera's MPO is a preview
                raise ValueError(f"{num_frames} frames in one file")
            return _decoded(image)
    except Exception as error:  # decoders fail with anything from OSError to SyntaxError
        raise UserError(
            f"{path}: not a readable image ({_reason(error)}); save it anew as one PNG or JPEG, or take it out"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _read_folder(path: Path, config: DataConfig) -> Iterator[Record]:
    entries = _entries(path)
    stray = [entry for entry in entries if not entry.is_dir() and entry.suffix.lower() in SUFFIXES]
    if stray:
        raise UserError(f"{stray[0]}: an image beside the class folders; put it into the folder of its class")
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise UserError(f"data.path={path}: no folder in it; make one folder for each class, named after it")
    for folder in classes:
        for file in _image_files(folder):
            content = _pixel_digest(_decoded_file(str(file)))
            yield str(file), {config.image: ImageFile(str(file), content), config.target: folder.name}


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


def _read_npz(path: Path, config: DataConfig) -> Iterator[Record]:
    arrays = _load_arrays(path)
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


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a broken zip fails in many ways; NumPy refuses arrays of objects with a ValueError
        raise UserError(
            f"data.path={path}: cannot be read as an .npz file ({_reason(error)}); fetch it again, or save plain "
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
