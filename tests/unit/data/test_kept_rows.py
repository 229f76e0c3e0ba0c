"""Rows from a file are the rows that went into it, bit for bit and type for type."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.data import kept_rows
from fedlit.data.kept_rows import ChosenRows, KeptRows
from fedlit.data.scratch import ScratchFile
from fedlit.partition.shards import rows_checksum

TEXT = st.text(st.characters(codec="utf-8"))
LEAF = TEXT | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
ROWS = st.lists(st.dictionaries(TEXT, VALUE, max_size=4), max_size=6)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal with all their types, signs and orders."""
    return type(one) is type(other) and repr(one) == repr(other)


@given(ROWS, st.integers(1, 60))
def test_rows_come_back_as_they_were(rows: list[dict[str, Any]], block: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kept_rows, "_BLOCK_BYTES", block)
        kept = KeptRows.of(rows)
        assert isinstance(kept, KeptRows)
        assert len(kept) == len(rows)
        assert same([*kept], rows)
        assert same([kept[i] for i in range(-len(rows), len(rows))], rows + rows)
        assert same(kept[1:5:2], rows[1:5:2])
        other = ScratchFile.make()
        kept.copy_to(other)
        kept.file = other
        assert same([*kept], rows)
        other.forget_name()
    assert rows_checksum(kept) == rows_checksum(rows)
    with pytest.raises(IndexError):
        kept[len(rows)]


class Text(str):
    """No plain text."""

    __slots__ = ()


ODD: list[Any] = [(1, 2), Text("a"), np.float64(0.5), np.int64(3), b"a", {1: "a"}, [{"a": (1,)}], {1}, "\ud83d"]


@pytest.mark.parametrize("value", [*ODD, 10**5000], ids=lambda value: type(value).__name__)
def test_what_json_would_change_stays_as_it_is(value: Any) -> None:
    rows = [{"a": "b"}, {"a": value}]
    assert KeptRows.of(rows) is rows


def test_not_a_number_is_one() -> None:
    found = KeptRows.of([{"a": math.nan, "b": -math.inf}])[0]
    assert math.isnan(found["a"])
    assert found["b"] == -math.inf


def test_without_a_place_for_files_rows_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    rows = [{"a": "b"}]
    assert KeptRows.of(rows) is rows


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert KeptRows.of([{"a": "b"}])[0] == {"a": "b"}
    assert [*tmp_path.iterdir()] == []


def test_chosen_rows_are_looked_up_by_number() -> None:
    rows = [{"a": i} for i in range(9)]
    chosen = ChosenRows(rows, (7, 0, 3))
    assert [*chosen] == [{"a": 7}, {"a": 0}, {"a": 3}]
    assert (chosen[-1], chosen[1:], len(chosen)) == ({"a": 3}, [{"a": 0}, {"a": 3}], 3)
