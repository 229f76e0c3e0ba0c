"""Images are read with their classes and told apart by content, and what is no image is told at once."""

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from omegaconf import OmegaConf
from PIL import Image

from fedlit.config.schema import DataConfig
from fedlit.data import images as images_module
from fedlit.data.image_sources import open_digits, open_images
from fedlit.data.images import ImageFile, check_cell, digest, pixels
from fedlit.data.sources import load_rows, load_test_rows
from fedlit.errors import UserError
from fedlit.partition.shards import rows_checksum

REPO = Path(__file__).parents[3]
SHARED = REPO.parent / "shared" / "data"
TUMOUR = SHARED / "brain_tumor" / "brain_tumor_128.npz"


def some_pixels(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def config(path: Path | None = None, **more: Any) -> DataConfig:
    return DataConfig(task="image_classification", source="images", path=None if path is None else str(path), **more)


def from_yaml(name: str, **more: Any) -> DataConfig:
    node = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(REPO / f"configs/data/{name}.yaml"), more)
    made = OmegaConf.to_object(node)
    assert isinstance(made, DataConfig)
    return made


def records(given: DataConfig) -> list[dict[str, Any]]:
    return [record for _, record in open_images(given)[1]]


def told(act: Callable[[], object], *parts: str) -> None:
    """Assert that `act` raises a UserError of one line with these parts."""
    with pytest.raises(UserError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def fails(path: Path | None, *parts: str, **more: Any) -> None:
    told(lambda: records(config(path, **more)), *parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 2 images of b, 1 of a, and what else lies about."""
    place = tmp_path / "pictures"
    for name, seed in (("b/2.PNG", 0), ("b/1.jpeg", 1), ("a/x.bmp", 2)):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(some_pixels(6, 5, 3, seed=seed)).save(place / name)
    (place / "README.txt").write_text("a readme")
    (place / ".hidden").mkdir()
    (place / "b" / ".DS_Store").write_text("")
    (place / "b" / "Thumbs.db").write_text("")
    return place


def npz(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "some.npz"
    np.savez(path, **arrays)
    return path


# --- what a model is shown of an image -----------------------------------------------------------------------------


def test_grey_and_colours_from_arrays() -> None:
    grey, colour = some_pixels(4, 5), some_pixels(4, 5, 3)
    assert np.array_equal(pixels(grey), np.stack([grey] * 3, axis=-1))
    assert np.array_equal(pixels(colour), colour)


def saved(tmp_path: Path, image: Image.Image, name: str = "x.png", **more: Any) -> ImageFile:
    image.save(tmp_path / name, **more)
    return ImageFile(str(tmp_path / name))


def test_decoding_grey_and_one_bit(tmp_path: Path) -> None:
    grey = some_pixels(4, 5)
    assert np.array_equal(pixels(saved(tmp_path, Image.fromarray(grey))), np.stack([grey] * 3, axis=-1))
    one_bit = pixels(saved(tmp_path, Image.fromarray(grey > 127)))
    assert np.array_equal(one_bit, np.stack([np.where(grey > 127, 255, 0)] * 3, axis=-1))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    colour = some_pixels(4, 5, 3)
    shown = pixels(saved(tmp_path, Image.fromarray(np.dstack([colour, some_pixels(4, 5, seed=1)]))))
    assert np.array_equal(shown, colour)
    grey = some_pixels(4, 5)
    with_alpha = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(some_pixels(4, 5, seed=1))])
    assert np.array_equal(pixels(saved(tmp_path, with_alpha)), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 128])])
def test_a_palette_becomes_its_colours(tmp_path: Path, transparency: Any) -> None:
    colours = some_pixels(3, 3)
    indices = np.random.default_rng(1).integers(0, 3, (4, 5), dtype=np.uint8)
    image = Image.new("P", (5, 4))
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    more = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pixels(saved(tmp_path, image, **more)), colours[indices])


@pytest.mark.parametrize("largest", [3, 4095, 65535])
def test_sixteen_bits_are_scaled_by_their_largest_value(tmp_path: Path, largest: int) -> None:
    values = np.random.default_rng(0).integers(0, largest + 1, (8, 9)).astype(np.uint16)
    values[0, :2] = 0, largest
    shown = pixels(saved(tmp_path, Image.fromarray(values)))
    assert np.array_equal(shown, np.stack([np.rint(values * (255 / largest))] * 3, axis=-1))
    assert (shown.min(), shown.max(), shown.dtype) == (0, 255, np.uint8)


def test_numbers_of_other_types(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert pixels(saved(tmp_path, Image.fromarray(values), "x.tiff"))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(Image.fromarray(np.zeros((2, 2), dtype=np.int32))).max() == 0
    for bad in (-1.0, np.nan, np.inf):
        values[0, 0] = bad
        file = saved(tmp_path, Image.fromarray(values), "bad.tiff")
        told(lambda file=file: pixels(file), "bad.tiff", "below zero or not finite")  # type: ignore[misc]


def test_a_photograph_is_turned_as_it_says(tmp_path: Path) -> None:
    upright = Image.fromarray(some_pixels(4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    assert np.array_equal(pixels(saved(tmp_path, upright, exif=exif)), np.rot90(np.asarray(upright), k=-1))


def test_colours_of_other_spaces(tmp_path: Path) -> None:
    image = Image.fromarray(some_pixels(8, 8, 3)).convert("CMYK")
    assert pixels(saved(tmp_path, image, "x.tiff")).shape == (8, 8, 3)


# --- digests -------------------------------------------------------------------------------------------------------

shapes = st.sampled_from([(2, 6), (6, 2), (3, 4), (12, 1), (2, 2, 3), (1, 4, 3), (4, 1, 3)])
cells = shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1)))


@settings(deadline=None, max_examples=60)
@given(cells, cells)
def test_digests_are_those_of_what_is_shown(one: Any, other: Any) -> None:
    same = pixels(one).shape == pixels(other).shape and bool((pixels(one) == pixels(other)).all())
    assert (digest(one) == digest(other)) == same


def test_a_digest_tells_shapes_and_single_values_apart() -> None:
    flat = np.arange(12, dtype=np.uint8)
    made = [flat.reshape(shape) for shape in ((3, 4), (4, 3), (2, 6), (12, 1), (2, 2, 3), (4, 1, 3))]
    changed = made[0].copy()
    changed[2, 3] += 1
    assert len({digest(cell) for cell in [*made, changed]}) == len(made) + 1
    assert digest(made[0]) == digest(made[0].copy(order="F"))


def test_one_picture_in_three_forms(tmp_path: Path) -> None:
    image = Image.fromarray(some_pixels(4, 5, 3))
    file = saved(tmp_path, image)
    assert digest(file) == digest(image) == digest(np.asarray(image)) != digest(np.asarray(image)[::-1])
    assert digest(ImageFile("nowhere", content="known")) == "known"


def test_a_digest_of_what_is_no_image() -> None:
    """Rows may have other columns, and a checksum goes over all of them."""
    others = [np.uint8(1), np.int64(1), b"1", {1}, np.ones((2, 2)), "\udc80"]
    assert len({digest(cell) for cell in others}) == len(others)
    assert digest(others[0]) == digest(np.uint8(1))


def test_the_checksum_of_rows_sees_their_images() -> None:
    def rows(seed: int) -> list[dict[str, Any]]:
        return [{"image": some_pixels(4, 5, seed=seed), "label": "a", "id": np.int32(7)}]

    assert rows_checksum(rows(0)) == rows_checksum(rows(0)) != rows_checksum(rows(1))


# --- cells ---------------------------------------------------------------------------------------------------------


def test_images_are_images(tmp_path: Path) -> None:
    image = Image.fromarray(some_pixels(4, 5, 3))
    for cell in (some_pixels(4, 5), some_pixels(4, 5, 3), image, image.convert("1"), saved(tmp_path, image)):
        check_cell(cell, "row 3", "data.image")


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        (None, "NoneType"),
        ("a/b.png", "str"),
        ([[1, 2]], "list"),
        ({"bytes": b"", "path": "x"}, "dict"),
        (some_pixels(4), "(4,) of uint8"),
        (some_pixels(4, 5, 4), "(4, 5, 4) of uint8"),
        (some_pixels(3, 4, 5), "(3, 4, 5) of uint8"),
        (some_pixels(0, 5), "(0, 5) of uint8"),
        (some_pixels(4, 5).astype(np.float32), "(4, 5) of float32"),
    ],
)
def test_what_is_no_image(cell: Any, what: str) -> None:
    told(lambda: check_cell(cell, "row 3", "data.image"), "row 3", "data.image", f"{what}, not an image")


def test_images_of_a_hub_that_cannot_be_decoded(tmp_path: Path) -> None:
    told(
        lambda: check_cell(Image.fromarray(np.full((2, 2), -1, np.int32)), "row 3", "data.image"), "row 3", "below zero"
    )
    told(lambda: check_cell(ImageFile(str(tmp_path / "gone.png")), "row 3", "data.image"), "gone.png", "FileNotFound")


# --- a folder ------------------------------------------------------------------------------------------------------


def test_a_folder_of_classes(folder: Path) -> None:
    name, found = open_images(config(folder))
    found_records = dict(found)
    assert name == str(folder)
    assert {Path(place).name: record["label"] for place, record in found_records.items()} == {
        "x.bmp": "a",
        "1.jpeg": "b",
        "2.PNG": "b",
    }
    assert list(found_records) == sorted(found_records), "the order is that of the names, not of the file system"
    cell = found_records[str(folder / "a" / "x.bmp")]["image"]
    assert np.array_equal(pixels(cell), some_pixels(6, 5, 3, seed=2))
    assert cell.content == digest(ImageFile(cell.path))


def test_columns_have_the_names_that_are_asked_for(folder: Path) -> None:
    assert set(records(config(folder, image="scan", target="finding"))[0]) == {"scan", "finding"}


def test_a_folder_is_decoded_once_and_not_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    whole = images_module._decoded_file
    monkeypatch.setattr(images_module, "_decoded_file", lambda path: decoded.append(path) or whole(path))
    rows = load_rows(config(folder), seed=0)
    rows_checksum(rows)
    assert len(decoded) == len(rows) == 3
    assert all(isinstance(row["image"], ImageFile) for row in rows)


def test_a_changed_file_changes_the_checksum(folder: Path) -> None:
    before = rows_checksum(load_rows(config(folder), seed=0))
    Image.fromarray(some_pixels(6, 5, 3, seed=9)).save(folder / "a" / "x.bmp")
    assert rows_checksum(load_rows(config(folder), seed=0)) != before


def test_a_test_set_of_its_own(folder: Path, tmp_path: Path) -> None:
    path = npz(tmp_path, images=some_pixels(4, 6, 5), labels=np.array(["a", "b", "b", "a"]))
    rows = load_test_rows(config(folder, test_path=str(path)))
    assert [row["label"] for row in rows] == ["a", "b", "b", "a"]


def test_a_folder_that_is_none(folder: Path, tmp_path: Path) -> None:
    fails(None, "data.path=<folder>")
    fails(tmp_path / "nowhere", "nowhere", "no such file or folder", "check the path")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "empty", "no folder in it", "one folder for each class")
    fails(folder / "README.txt", "README.txt", "neither a folder nor an .npz file")


def test_a_class_without_images(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / ".DS_Store").write_text("")
    fails(folder, f"{folder / 'c'}", "a class without an image")


def test_a_folder_above_the_right_one(folder: Path) -> None:
    fails(folder.parent, "holds one folder, pictures", f"data.path={folder}")


def test_files_that_stand_in_the_wrong_place(folder: Path) -> None:
    Image.fromarray(some_pixels(4, 5)).save(folder / "stray.jpg")
    fails(folder, "stray.jpg", "beside the class folders")
    (folder / "stray.jpg").rename(folder / "b" / "scan.dcm")
    fails(folder, "scan.dcm", "no image by its ending, as 1 of 3 files in b", ".png")


def truncated(path: Path) -> None:
    Image.fromarray(some_pixels(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-400])


def broken_chunk(path: Path) -> None:
    Image.fromarray(some_pixels(64, 64, 3)).save(path, format="png")
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)


def animated(path: Path) -> None:
    frames = [Image.fromarray(some_pixels(4, 5, seed=seed)) for seed in range(3)]
    frames[0].save(path, format="gif", save_all=True, append_images=frames[1:])


def bomb(path: Path) -> None:
    path.write_bytes(b"P5 60000 60000 255\n" + b"0" * 100)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("cut.png", truncated, "OSError"),
        ("cut.jpg", truncated, "truncated"),
        ("chunk.png", broken_chunk, "Error"),
        ("text.png", lambda path: path.write_text("no picture"), "UnidentifiedImageError"),
        ("empty.png", lambda path: path.write_bytes(b""), "UnidentifiedImageError"),
        ("film.gif", animated, "3 frames in one file"),
        ("bomb.pgm", bomb, "DecompressionBombError"),
    ],
)
def test_an_unreadable_image(folder: Path, name: str, write: Callable[[Path], None], reason: str) -> None:
    write(folder / "b" / name)
    fails(folder, str(folder / "b" / name), "not a readable image", reason, "take it out")


# --- an .npz file --------------------------------------------------------------------------------------------------


def test_an_npz_file(tmp_path: Path) -> None:
    images = some_pixels(3, 4, 5)
    path = npz(
        tmp_path,
        images=images,
        labels=np.array([1, 0, 1], dtype=np.uint8),
        label_names=np.array(["cat", "dog", "cow"]),
        ids=np.array([7, 8, 9], dtype=np.int32),
        site=np.array(["x", "y", "z"]),
        boxes=np.zeros((3, 4)),
        other=np.zeros(2),
    )
    found = records(config(path))
    assert [record["label"] for record in found] == ["dog", "cat", "dog"]
    assert [record["ids"] for record in found] == [7, 8, 9]
    assert {tuple(record) for record in found} == {("image", "label", "ids", "site")}
    assert all(np.array_equal(record["image"], image) for record, image in zip(found, images, strict=True))
    others = [{name: value for name, value in record.items() if name != "image"} for record in found]
    assert json.loads(json.dumps(others)) == others, "plain values"


def test_labels_without_names_and_names_as_labels(tmp_path: Path) -> None:
    numbers = npz(tmp_path, images=some_pixels(2, 4, 5, 3), labels=np.array([5, -1]))
    assert [record["label"] for record in records(config(numbers))] == [5, -1]
    names = npz(tmp_path, images=some_pixels(2, 4, 5, 1), labels=np.array(["cat", "dog"]))
    found = records(config(names))
    assert [record["label"] for record in found] == ["cat", "dog"]
    assert found[0]["image"].shape == (4, 5)


GOOD: dict[str, Any] = {"images": some_pixels(3, 4, 5), "labels": np.array([0, 1, 0])}


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"labels": None}, ("no array 'labels'", "['images']")),
        ({"images": None}, ("no array 'images'", "['labels']")),
        ({"labels": np.array([0, 1])}, ("3 images but 2 labels",)),
        ({"labels": np.array([0.0, 1.0, 0.0])}, ("(3,) of float64", "one integer or one name")),
        ({"labels": np.array([[0], [1], [0]])}, ("(3, 1) of int64",)),
        ({"labels": np.array([True, False, True])}, ("of bool",)),
        ({"images": some_pixels(3, 4, 5).astype(np.uint16)}, ("(3, 4, 5) of uint16", "uint8")),
        ({"images": some_pixels(3, 4, 5) / 255}, ("of float64",)),
        ({"images": some_pixels(3, 20)}, ("(3, 20) of uint8", "(n, H, W)")),
        ({"images": some_pixels(3, 3, 8, 8)}, ("(3, 3, 8, 8) of uint8", "(n, H, W, 3)")),
        ({"images": some_pixels(3, 0, 8)}, ("(3, 0, 8)",)),
        ({"labels": np.array([0, 2, 3]), "label_names": np.array(["a", "b"])}, ("image 1: label 2", "2 label_names")),
        ({"labels": np.array([0, 1, -1]), "label_names": np.array(["a", "b"])}, ("image 2: label -1", "0 to 1")),
        ({"label_names": np.array([1, 2])}, ("label_names are (2,) of int64",)),
        ({"labels": np.array(["a", "b", "a"]), "label_names": np.array(["a", "b"])}, ("labels of <U1",)),
        ({"labels": np.array([0, "a", None], dtype=object)}, ("cannot be read", "pickle")),
        ({"extra": np.array([None, {}, 3])}, ("cannot be read", "plain arrays")),
        ({"label": np.array([1, 2, 3])}, ("'label'", "rename it")),
    ],
    ids=str,
)
def test_arrays_that_do_not_fit(tmp_path: Path, changed: dict[str, Any], parts: tuple[str, ...]) -> None:
    arrays = {name: array for name, array in {**GOOD, **changed}.items() if array is not None}
    fails(npz(tmp_path, **arrays), "some.npz", *parts)


def test_a_broken_npz_file(tmp_path: Path) -> None:
    path = npz(tmp_path, **GOOD)
    whole = path.read_bytes()
    for content in (b"", b"no zip", whole[: len(whole) // 2], whole[:150] + b"\xff" * 20 + whole[170:]):
        path.write_bytes(content)
        fails(path, "some.npz", "cannot be read as an .npz file", "fetch it again")


def test_no_images_at_all(tmp_path: Path) -> None:
    path = npz(tmp_path, images=some_pixels(0, 4, 5), labels=np.zeros(0, dtype=np.int64))
    told(lambda: load_rows(config(path), seed=0), "no rows")


@pytest.mark.skipif(not TUMOUR.is_file(), reason="the shared brain tumour file is not there")
def test_the_real_brain_tumour_file() -> None:
    rows = load_rows(from_yaml("brain_tumor", path=str(TUMOUR)), seed=0)
    assert Counter(row["label"] for row in rows) == {"meningioma": 708, "glioma": 1426, "pituitary": 930}
    assert [row["ids"] for row in rows] == list(range(1, 3065))
    assert {row["image"].shape for row in rows} == {(128, 128)}
    assert len({digest(row["image"]) for row in rows[::10]}) == len(rows[::10])
    assert set(rows[0]) == {"image", "label", "ids"}


# --- digits --------------------------------------------------------------------------------------------------------


def test_the_digits() -> None:
    rows = load_rows(from_yaml("digits"), seed=0)
    counts = Counter(row["label"] for row in rows)
    assert (sum(counts.values()), counts[8], counts[3]) == (1797, 174, 183)
    assert (min(counts.values()), max(counts.values())) == (174, 183)
    shown = np.stack([row["image"] for row in rows])
    assert (shown.shape, shown.dtype, shown.min(), shown.max()) == ((1797, 8, 8), np.uint8, 0, 255)
    assert len(np.unique(shown)) == 17
    assert list(dict(open_digits(DataConfig(image="x", target="y"))[1])["digits, image 3"]) == ["x", "y"]


def test_your_own_images(folder: Path) -> None:
    assert [row["label"] for row in load_rows(from_yaml("images", path=str(folder)), seed=0)] == ["a", "b", "b"]
    told(lambda: load_rows(from_yaml("images"), seed=0), "give data.path=<folder>")


def test_a_folder_with_the_parts_of_a_data_set(tmp_path: Path) -> None:
    for part in ("train", "Test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(some_pixels(8, 8)).save(tmp_path / part / name / "1.png")
    fails(tmp_path, f"data.path={tmp_path / 'train'} data.test_path={tmp_path / 'Test'}", "train and Test")
    assert [row["label"] for row in load_rows(config(tmp_path / "train"), 0)] == ["cat", "dog"]


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        Image.fromarray(some_pixels(8, 8)).save(tmp_path / name / "1.png")
    assert [row["label"] for row in load_rows(config(tmp_path), 0)] == ["test", "train"]
