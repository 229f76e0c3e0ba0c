"""Images of a data set, and what a model is shown of them.

A cell is what a row holds for its image: an array of uint8, (H, W) or (H, W, 3); an ImageFile, which is decoded each
time it is looked at, so that a large folder is never held in memory; or a PIL image, which hub data sets give.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlit.data.json_files import require_no_pointer
from fedlit.errors import UserError

Pixels = NDArray[np.uint8]


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


def is_cheap(cell: Any) -> bool:
    """Tell whether the digest of a cell is known without decoding an image."""
    return cell.content is not None if isinstance(cell, ImageFile) else not _is_pil(cell)


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
                f"{place}: the image of {key} cannot be decoded ({reason(error)}); mend it or take the row out"
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


def digest_of_file(path: str) -> str:
    """Return the digest of an image in a file, which is decoded; UserError as of `pixels`."""
    return _pixel_digest(_decoded_file(path))


def _decoded_file(path: str) -> Pixels:
    from PIL import Image  # noqa: PLC0415 (needed for images only)

    try:
        require_no_pointer(Path(path), path)
        with Image.open(path) as image:
            num_frames = getattr(image, "n_frames", 1)
            if num_frames > 1 and image.format != "MPO":  # the further frame of a camera's MPO is a preview
                raise ValueError(f"{num_frames} frames in one file")
            return _decoded(image)
    except UserError:
        raise
    except Exception as error:  # decoders fail with anything from OSError to SyntaxError
        raise UserError(
            f"{path}: not a readable image ({reason(error)}); save it anew as one PNG or JPEG, or take it out"
        ) from error


def reason(error: Exception) -> str:
    """Return what an exception says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
