"""Tables of single examples, written whole, the same bytes for the same columns, and put back with the records."""

import json
from pathlib import Path

import pytest

from fedlit.config import RunConfig, RunFolderConfig
from fedlit.errors import UserError
from fedlit.store.example_scores import keep_until, path_of, read, rounds, write
from fedlit.store.folder import RunFolder
from fedlit.store.samples import NAME, read_samples

COLUMNS = {
    "set": ["global", "own"],
    "client": [None, 3],
    "position": [0, 7],
    "example": ["ab", "cd"],
    "group": [None, None],
    "prediction": ["é\ud800\n", ""],
    "loss_sum": [1.5, 2.0],
    "loss_count": [3, 4],
    "bleu_counts": [[1, 2], [3, 4]],
}


def test_a_table_comes_back(tmp_path: Path) -> None:
    write(tmp_path, 3, COLUMNS)
    frame = read(tmp_path)
    assert frame["client"].isna().tolist() == [True, False] and frame["client"][1] == 3
    assert frame["prediction"].tolist() == ["é?\n", ""]
    assert [list(each) for each in frame["bleu_counts"]] == [[1, 2], [3, 4]]
    assert frame["group"].isna().all()
    first = path_of(tmp_path, 3).read_bytes()
    write(tmp_path, 3, COLUMNS)
    assert path_of(tmp_path, 3).read_bytes() == first
    assert [path.name for path in (tmp_path / "examples").iterdir()] == ["round-0003.parquet"]


def test_what_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of no round") as nothing:
        read(tmp_path)
    write(tmp_path, 3, COLUMNS)
    write(tmp_path, 12345, COLUMNS)
    assert rounds(tmp_path) == [3, 12345]
    with pytest.raises(UserError, match="of rounds 3, 12345 alone") as other:
        read(tmp_path, 4)
    path_of(tmp_path, 3).write_bytes(b"PAR1 and nothing of the kind")
    with pytest.raises(UserError, match="cannot be read") as damaged:
        read(tmp_path, 3)
    for error in (nothing, other, damaged):
        assert "\n" not in str(error.value) and len(str(error.value)) <= 400


def test_later_rounds_go_when_a_run_goes_back(tmp_path: Path) -> None:
    keep_until(tmp_path, 1)  # nothing there
    for number in range(4):
        write(tmp_path, number, COLUMNS)
    keep_until(tmp_path, 1)
    assert rounds(tmp_path) == [0, 1]
    keep_until(tmp_path, None)
    assert rounds(tmp_path) == []


@pytest.mark.parametrize("cut", [b'{"round": 3, "se', b"", b"\xff\n", b"[1]\n", b'{"round": 3, "set": "global"}\n'])
def test_samples_and_tables_go_back_with_the_records(tmp_path: Path, cut: bytes) -> None:
    folder = RunFolder(RunConfig(run=RunFolderConfig(dir=str(tmp_path), name="a")))
    folder.path.mkdir()
    for number in range(3):
        folder.keep_examples(number, [{"set": "global", "prompt": f"p {number}"}], COLUMNS)
        folder.append({"round": number})
    whole = (folder.path / NAME).read_bytes()
    copy = tmp_path / "copy"
    copy.write_bytes(folder.records_path.read_bytes())
    write(folder.path, 3, COLUMNS)
    with (folder.path / NAME).open("ab") as file:
        file.write(cut)
    folder.restore_records(copy.read_text(encoding="utf-8"))
    assert (folder.path / NAME).read_bytes() == whole
    assert rounds(folder.path) == [0, 1, 2]
    assert [line["prompt"] for line in read_samples(folder.path, 2)] == ["p 2"]
    assert [json.loads(line)["round"] for line in folder.records_path.read_text().splitlines()] == [0, 1, 2]
    folder.restore_records(None)
    assert not (folder.path / NAME).exists() and rounds(folder.path) == []


def test_a_folder_in_the_place_of_a_file_and_the_other_way_round(tmp_path: Path) -> None:
    folder = RunFolder(RunConfig(run=RunFolderConfig(dir=str(tmp_path), name="a")))
    folder.path.mkdir()
    (folder.path / "examples").write_text("")
    with pytest.raises(UserError, match="examples is a file where a run keeps a folder"):
        folder.require_same_run()
