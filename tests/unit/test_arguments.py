"""Words of a command line: numbers in decimal digits, texts in UTF-8, files that can be written."""

import argparse
from pathlib import Path

import pytest

from fedlit.arguments import CommandParser, integer, positive, require_file, split_targets, writing
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import collect


@pytest.mark.parametrize("text", ["１２", "1_0", "0x10", "010", " 1", "1.0", "٣", "9" * 5000, "", "+1"])
def test_no_other_digits_are_integers(text: str) -> None:
    for read in (integer, positive):
        with pytest.raises(argparse.ArgumentTypeError):
            read(text)


def test_integers() -> None:
    assert (integer("-1"), integer("0"), integer("12"), positive("12")) == (-1, 0, 12, 12)
    for text in ("0", "-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
            positive(text)


@pytest.mark.parametrize("words", [["caf\udce9"], ["--output=caf\udce9"], ["a=\udce9"]])
def test_a_word_that_is_not_utf8_is_one_line(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"\\udce9.*write it in UTF-8"):
        CommandParser("x.py", "x", "x").parse(words)


def test_a_long_word_names_no_file() -> None:
    assert split_targets(["runs", "a=" + "x" * 5000]) == (["runs"], ["a=" + "x" * 5000])
    for words in (["x" * 5000], ["x" * 5000, "y"], ["~nobody-of-this-name"]):
        with pytest.raises(UserError):
            collect(words)


def test_a_device_is_not_replaced_and_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no regular file"):
        require_file(Path("/dev/full"), "--output")
    with pytest.raises(UserError, match="is a folder"):
        require_file(tmp_path, "--output")
    require_file(tmp_path / "new", "--output")


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "no" / "file"
    with pytest.raises(UserError, match=r"cannot write .*no/file \(No such file.*--output$"), writing(path, "--output"):
        path.write_text("x")
