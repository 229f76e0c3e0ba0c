"""One reader of metrics.jsonl and one best round, whatever stands in the file."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from fedlit.errors import UserError
from fedlit.store.records import NAME, Record, best_record, count_records, newest_first, read_records, trained


def write(folder: Path, text: str | bytes) -> Path:
    (folder / NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [{"round": 0, "global/loss": 4.0}, {"round": 1, "text": "line\u2028break\r and \x85 \u00e9"}]
    lines = [json.dumps(record, ensure_ascii=ascii) for record in written for ascii in (True, False)]
    write(tmp_path, "".join(line + "\n" for line in lines))
    assert read_records(tmp_path) == [written[0], written[0], written[1], written[1]]
    assert [*newest_first(tmp_path)] == read_records(tmp_path)[::-1]
    assert count_records(tmp_path) == 4


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert read_records(tmp_path) == []
    assert read_records(write(tmp_path, "")) == []
    assert count_records(tmp_path) == 0


DEEP = b"[" * 100_000


@pytest.mark.parametrize("torn", [b'{"round": 1, "glo', b'{"round": 1}', b"[", "é".encode()[:1]])
def test_a_line_without_its_end_does_not_count(torn: bytes, tmp_path: Path) -> None:
    write(tmp_path, b'{"round": 0}\n' + torn)
    assert read_records(tmp_path) == [{"round": 0}]
    assert count_records(tmp_path) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"round": "1"}',
        b'{"round": 1.5}',
        b'{"round": true}',
        b"{",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_whole_line_that_is_no_record_is_told(line: bytes, tmp_path: Path) -> None:
    write(tmp_path, b'{"round": 0}\n' + line + b'\n{"round": 2}\n')
    with pytest.raises(UserError) as caught:
        read_records(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has a damaged metrics.jsonl (line 2 is no record of a round); mend it, or move the folder away"
    )
    assert next(newest_first(tmp_path)) == {"round": 2}, "what is not asked for is not read"


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read .Is a directory"):
        read_records(tmp_path)
    assert read_records(tmp_path / "metrics.jsonl" / "below") == []


def test_what_is_no_finite_number_is_read_and_never_best(tmp_path: Path) -> None:
    write(tmp_path, '{"round": 1, "global/loss": NaN}\n{"round": 2, "global/loss": -Infinity}\n')
    first, second = read_records(tmp_path)
    assert math.isnan(first["global/loss"])
    assert second["global/loss"] == -math.inf
    assert best_record([first, second], "global/loss") is None


def test_the_best_record() -> None:
    records: list[Record] = [
        {"round": 0, "global/accuracy": 1.0, "global/loss": 0.0},
        {"round": 1, "global/accuracy": 0.5, "global/loss": 3.0},
        {"round": 2},
        {"round": 3, "global/accuracy": 0.7, "global/loss": 2.0},
        {"round": 4, "global/accuracy": 0.7, "global/loss": 2.0},
    ]
    for key in ("global/accuracy", "global/loss"):
        assert best_record(records, key) is records[3]
        assert best_record(records[:1], key) is None
    again = {"round": 3, "global/accuracy": 0.1}
    assert best_record([*records, again], "global/accuracy") is records[4], "of two records of a round the later counts"
    assert [record["round"] for record in trained(records)] == [1, 2, 3, 4]


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'lightning'}"
    code = f"import sys, fedlit.store.records; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
