"""Image folders as people have them: each is read, or told in one line with the options that read it."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedlit.config.schema import DataConfig
from fedlit.data.image_layouts import image_sets
from fedlit.data.image_sources import open_images
from fedlit.data.images import ImageFile
from fedlit.data.places import file_of
from fedlit.data.sources import load_test_rows, read_data
from fedlit.errors import UserError
from fedlit.lines import MAX_LINE_CHARACTERS


def draw(root: Path, *names: str) -> Path:
    """Write one tiny image for each name."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((3, 4, 3), number % 256, np.uint8)).save(path)
    return root


def config(path: Path | str | list[str], **more: Any) -> DataConfig:
    given = path if isinstance(path, list) else str(path)
    return DataConfig(task="image_classification", source="images", path=given, **more)


def read(path: Path | str | list[str], *, by_file: bool = False, key: str = "data.path") -> list[tuple[str, str, Any]]:
    """Return client, name of the image and class of every record."""
    found = []
    for place, record in open_images(config(path), key, by_file=by_file)[1]:
        image = record["image"]
        found.append((file_of(place), Path(image.path).name if isinstance(image, ImageFile) else "", record["label"]))
    return found


def told(path: Path | str | list[str], *parts: str, by_file: bool = False, key: str = "data.path") -> str:
    with pytest.raises(UserError) as caught:
        read(path, by_file=by_file, key=key)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    return message


HOSPITALS = tuple(
    f"{site}/{kind}/{kind}{i}.png" for site in ("north", "south") for kind in ("cat", "dog") for i in (1, 2)
)


def test_folders_of_clients_with_class_folders(tmp_path: Path) -> None:
    draw(tmp_path, *HOSPITALS, "north/readme.txt.png")
    (tmp_path / "north" / "readme.txt.png").rename(tmp_path / "north" / "readme.txt")
    found = read(tmp_path, by_file=True)
    assert found[:3] == [("north", "cat1.png", "cat"), ("north", "cat2.png", "cat"), ("north", "dog1.png", "dog")]
    assert [client for client, _, _ in found] == ["north"] * 4 + ["south"] * 4
    rows = read_data(config(tmp_path, label=None), by_file=True)
    assert rows.files == ("north",) * 4 + ("south",) * 4


def test_folders_of_clients_without_the_partition_are_told_how_to_be_read(tmp_path: Path) -> None:
    draw(tmp_path, *HOSPITALS)
    told(tmp_path, "(north, south)", "partition.name=files num_clients=2", f"data.path='{tmp_path}/*'")
    assert [label for _, _, label in read(f"{tmp_path}/*")] == ["cat", "cat", "dog", "dog"] * 2
    told(tmp_path, f"data.test_path='{tmp_path}/*'", key="data.test_path")


def test_nested_class_folders(tmp_path: Path) -> None:
    draw(tmp_path, "cat/siamese/1.png", "cat/tabby/1.png", "dog/boxer/1.png")
    message = told(tmp_path, f"give data.path='{tmp_path}/*' if the inner ones are the classes")
    assert "num_clients=2" in message, "what looks like nested classes may be clients that share no class"
    assert [label for _, _, label in read(f"{tmp_path}/*")] == ["siamese", "tabby", "boxer"]


def test_a_folder_beside_the_images_of_a_class(tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", "cat/more/2.png", "dog/1.png")
    told(tmp_path, "cat", "'more'")
    draw(tmp_path / "mixed", "cat/1.png", "north/cat/2.png")
    told(tmp_path / "mixed", "north holds folders and cat holds none", by_file=True)


def test_one_folder_around_the_classes(tmp_path: Path) -> None:
    draw(tmp_path, "archive/pets/cat/1.png", "archive/pets/dog/1.png")
    told(tmp_path / "archive", "one folder, pets", f"give data.path={tmp_path / 'archive' / 'pets'}")


def test_a_folder_around_those_of_the_clients(tmp_path: Path) -> None:
    draw(tmp_path / "hospitals", *HOSPITALS)
    told(tmp_path, f"data.path={tmp_path}/hospitals: its folders (north, south) hold the same", by_file=True)


def splits(root: Path, *names: str) -> Path:
    return draw(root, *(f"{name}/{kind}/1.png" for name in names for kind in ("cat", "dog")))


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (("train", "test"), "data.path={0}/train data.test_path={0}/test"),
        (("Training", "Testing"), "data.path={0}/Training data.test_path={0}/Testing"),
        (("test_set", "training_set"), "data.path={0}/training_set data.test_path={0}/test_set"),
        (("seg_train", "seg_test", "seg_pred"), "data.path={0}/seg_train data.test_path={0}/seg_test"),
        (("train", "val"), "data.path={0}/train data.test_path={0}/val"),
        (
            ("train", "test", "val"),
            "data.path={0}/train data.test_path={0}/test data.validation_path={0}/val",
        ),
        (("train", "test", "validation"), "data.validation_path={0}/validation"),
    ],
)
@pytest.mark.parametrize("by_file", [False, True])
def test_the_parts_of_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], given: str, *, by_file: bool
) -> None:
    splits(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    message = told(tmp_path.relative_to(tmp_path), given.format("DIR").replace("DIR/", ""), by_file=by_file)
    assert f"data.path={names[0]} " not in message or "train" in names[0].lower()


@pytest.mark.parametrize("by_file", [False, True])
def test_a_test_set_is_never_proposed_for_training(tmp_path: Path, *, by_file: bool) -> None:
    for names in (("test", "val"), ("pets", "test"), ("Test", "images")):
        root = splits(tmp_path / "_".join(names), *names)
        message = told(root, "no training set", "data.path=,", by_file=by_file)
        for name in names:
            assert f"data.path={root / name}" not in message


def test_parts_around_which_there_is_a_folder(tmp_path: Path) -> None:
    splits(tmp_path / "xray", "test", "train", "val")
    message = told(tmp_path, "its folder xray holds the folders train and test and val").replace("DIR/", f"{tmp_path}/")
    assert f"data.path={tmp_path}/xray/train data.test_path={tmp_path}/xray/test data.validation_path=" in message


def test_parts_in_the_folder_of_each_client(tmp_path: Path) -> None:
    for site in ("north", "south"):
        splits(tmp_path / site, "test", "train")
    for by_file in (False, True):
        told(
            tmp_path,
            f"partition.name=files num_clients=2 data.path='{tmp_path}/*/train' data.test_path='{tmp_path}/*/test'",
            by_file=by_file,
        )
    assert {client for client, _, _ in read(f"{tmp_path}/*/train", by_file=True)} == {"north", "south"}
    tests = load_test_rows(config(f"{tmp_path}/*/train", test_path=f"{tmp_path}/*/test", label=None), ("cat", "dog"))
    assert [row["label"] for row in tests] == ["cat", "dog"] * 2


def test_clients_in_the_training_part(tmp_path: Path) -> None:
    for part in ("train", "test"):
        draw(tmp_path / part, *HOSPITALS)
    told(tmp_path, f"data.path={tmp_path}/train data.test_path={tmp_path}/test", by_file=True)
    assert len(read(tmp_path / "train", by_file=True)) == 8
    told(tmp_path / "test", f"data.test_path='{tmp_path}/test/*'", key="data.test_path")


def test_a_pattern_takes_no_test_set_for_training(tmp_path: Path) -> None:
    splits(tmp_path, "train", "test")
    told(f"{tmp_path}/*", "takes test, a test set by its name", f"data.path={tmp_path}/train")
    arrays = {"images": np.zeros((2, 3, 4), np.uint8), "labels": np.array([0, 1])}
    (tmp_path / "arrays").mkdir()
    for name in ("pets_train", "pets_test"):
        np.savez(tmp_path / "arrays" / f"{name}.npz", **arrays)
    told(tmp_path / "arrays", "takes pets_test.npz")
    assert len(read(f"{tmp_path}/t*t", key="data.test_path")) == 2


def test_npz_files_of_clients(tmp_path: Path) -> None:
    for name, num in (("site_2", 2), ("site_10", 3)):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((num, 3, 4), np.uint8), labels=np.arange(num) % 2)
    for path in (tmp_path, f"{tmp_path}/*.npz", [f"{tmp_path}/site_10.npz", f"{tmp_path}/site_2.npz"]):
        assert sorted(client for client, _, _ in read(path, by_file=True)) == ["site_10"] * 3 + ["site_2"] * 2
        assert {client for client, _, _ in read(path)} == {""}


def test_a_list_of_folders(tmp_path: Path) -> None:
    draw(tmp_path, *HOSPITALS)
    given = [str(tmp_path / "south"), str(tmp_path / "north")]
    assert [client for client, _, _ in read(given, by_file=True)] == ["south"] * 4 + ["north"] * 4
    told([given[0], f"{tmp_path}/north/../south"], "named twice")
    told([given[0], f"{tmp_path}/west"], "west", "no such file or folder")
    told(f"{tmp_path}/w*", "matches no folder")


def test_names_of_clients_are_what_tells_their_paths_apart(tmp_path: Path) -> None:
    draw(tmp_path, "a/2020/images/cat/1.png", "b/2021/images/cat/1.png", "c/cat/1.png", "c/c/cat/1.png")
    names = [found.name for found in image_sets([f"{tmp_path}/?/*/images"], "data.path", by_file=True)]
    assert names == ["a/2020", "b/2021"]
    given = [str(tmp_path / "c"), str(tmp_path / "c" / "c")]
    assert len({found.name for found in image_sets([given[1], f"{tmp_path}/a/2020/images"], "x", by_file=True)}) == 2


# --- a metadata file -----------------------------------------------------------------------------------------------


def table(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def test_a_flat_folder_with_metadata(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png", "deep/3.png", "unlisted.png")
    rows = [
        ["file_name", "label", "site", "age", "code", "day"],
        ["2.png", "naïve, rare", "north", "61", "007", "2020-01-02"],
        ["deep/3.png", "common", "south", "7", "1", "2020-01-03"],
        ["1.png", "common", "south", "-3", "2", ""],
    ]
    table(tmp_path / "metadata.csv", rows)
    found = [record for _, record in open_images(config(tmp_path))[1]]
    assert [Path(record.pop("image").path).name for record in found] == ["2.png", "3.png", "1.png"]
    assert found[0] == {"label": "naïve, rare", "site": "north", "age": "61", "code": "007", "day": "2020-01-02"}
    ages = [record["age"] for _, record in open_images(config(tmp_path, target="age"))[1]]
    assert ages == [61, 7, -3], "of what is predicted whole numbers are numbers, so that 7 comes before 61"
    assert {type(record["code"]) for _, record in open_images(config(tmp_path, target="code"))[1]} == {str}
    places = [place for place, _ in open_images(config(tmp_path))[1]]
    assert places[1] == f"{tmp_path / 'metadata.csv'}, line 3"
    (tmp_path / "metadata.csv").unlink()
    names, *values = rows
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in values]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert [label for _, _, label in read(tmp_path)] == ["naïve, rare", "common", "common"]


def test_classes_of_a_parquet_file_have_their_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    draw(tmp_path, "1.png", "2.png")
    features = datasets.Features(
        {"file_name": datasets.Value("string"), "label": datasets.ClassLabel(names=["benign", "malign"])}
    )
    rows = datasets.Dataset.from_dict({"file_name": ["1.png", "2.png"], "label": [1, 0]}, features=features)
    rows.to_parquet(tmp_path / "metadata.parquet")
    assert read(tmp_path) == [("", "1.png", "malign"), ("", "2.png", "benign")]
    classes: dict[str, list[str]] = {}
    list(open_images(config(tmp_path), classes=classes)[1])
    assert classes == {"label": ["benign", "malign"]}, "in the order of their numbers"
    numbered = open_images(config(tmp_path, classes=["good", "bad"]))[1]
    assert [record["label"] for _, record in numbered] == [1, 0], "the names are those that were given"


def test_clients_with_metadata(tmp_path: Path) -> None:
    for site in ("north", "south"):
        draw(tmp_path / site, "1.png")
        table(tmp_path / site / "metadata.csv", [["file_name", "label"], ["1.png", site]])
    assert read(tmp_path, by_file=True) == [("north", "1.png", "north"), ("south", "1.png", "south")]
    told(tmp_path, "partition.name=files num_clients=2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("image,label\n1.png,a\n", "line 2: no column 'file_name' among ['image', 'label']"),
        ("file_name,label\n1.png,a\ngone.png,b\n", "line 3: file_name is 'gone.png', no file in"),
        ("file_name,label\n1,a\n", "write the name with its ending, 1.png"),
        ("file_name,label\n1.png,a,b\n", "line 2: 3 cells, and the first line names 2 columns"),
        ("file_name,label,label\n1.png,a,b\n", "two columns are called 'label'"),
        ("file_name,image,label\n1.png,x,a\n", "the column 'image' has the name of data.image"),
        ('file_name,label\n1.png,"a\n', "a cell after line 1 does not end"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, content: str, words: str) -> None:
    draw(tmp_path, "1.png")
    (tmp_path / "metadata.csv").write_text(content)
    told(tmp_path, "metadata.csv", words)


def test_metadata_is_read_as_any_table_is(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png")
    (tmp_path / "metadata.csv").write_text("file_name;label;ward\n1.png;a;\n2.png;b;007\n")
    rows = [row for _, row in open_images(config(tmp_path))[1]]
    assert [(row["label"], row["ward"]) for row in rows] == [("a", None), ("b", "007")]


def test_metadata_twice_or_not_utf_8(tmp_path: Path) -> None:
    draw(tmp_path, "1.png")
    (tmp_path / "metadata.csv").write_bytes("file_name,label\n1.png,naïve\n".encode("latin-1"))
    told(tmp_path, "metadata.csv", "save it as UTF-8")
    (tmp_path / "metadata.parquet").write_bytes(b"none")
    told(tmp_path, "metadata.csv and metadata.parquet; keep one")
    (tmp_path / "metadata.csv").unlink()
    told(tmp_path, "cannot be read as parquet")


def test_images_without_classes(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png")
    told(tmp_path, "2 images and no class folders", "metadata.csv with file_name and label")
    table(tmp_path / "labels.csv", [["id", "label"]])
    told(tmp_path, "if labels.csv tells the classes, name it metadata.csv")
    draw(tmp_path / "ham", "images/1.png")
    table(tmp_path / "ham" / "HAM.csv", [["id", "label"]])
    told(tmp_path / "ham", "HAM.csv", "file_name (images/...)")


def test_archives(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("pets.zip", "pets.tar.gz", "in/pets.zip"):
        (tmp_path / name).write_bytes(b"PK")
    told(tmp_path / "pets.zip", "an archive; unpack it")
    told(tmp_path / "pets.tar.gz", "an archive; unpack it")
    told(tmp_path / "in", "no folder in it; unpack pets.zip")


def test_a_long_path_is_written_once(tmp_path: Path) -> None:
    root = splits(tmp_path / ("long" * 30), "train", "test", "val")
    message = told(root, "data.path=DIR/train data.test_path=DIR/test data.validation_path=DIR/val (DIR: that folder)")
    assert len(message) <= MAX_LINE_CHARACTERS
