"""CollectedMetric: what goes in comes out, in one order whatever the split, and wrong items are refused."""

import copy
import json
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedlit.metrics.collected import CollectedMetric, _gather_bytes

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")

ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


class Kept(CollectedMetric):
    """Computes the number of items; `all` is what a score would see."""

    def update(self, items: list[Any]) -> None:
        self._collect(items)

    def compute(self) -> Tensor:
        self.all = self._items()
        return torch.tensor(float(len(self.all)), dtype=torch.float64)


def order(items: list[Any]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


@settings(max_examples=60, deadline=None)
@given(st.lists(ITEMS, max_size=8), st.data())
def test_items_come_back_in_one_order(items: list[Any], data: st.DataObject) -> None:
    """Also line breaks of all kinds, lone surrogates and numbers of any size; however they were dealt."""
    whole, parts = Kept(), Kept()
    whole.update(items)
    mixed = data.draw(st.permutations(items))
    cut = data.draw(st.integers(0, len(items)))
    parts.update(mixed[:cut])
    parts.update(mixed[cut:])
    assert whole.compute() == parts.compute() == len(items)
    assert whole.all == parts.all
    assert [json.dumps(item, sort_keys=True) for item in whole.all] == order(items)


def test_texts_that_break_lines() -> None:
    texts = ["a\nb", "a\r\nb", "a\u2028b", "a\x85b", "\x1c", "\ud800", "日本", "", '"', "\\n"]
    kept = Kept()
    kept.update(texts)
    kept.compute()
    assert sorted(kept.all) == sorted(texts)


def test_items_may_be_added_after_computing() -> None:
    kept = Kept()
    assert kept.compute() == 0
    kept.update([])
    assert kept.compute() == 0
    kept.update([[1, "a"]])
    assert kept.compute() == 1
    kept.update([(1, "b")])  # a tuple comes back as a list
    assert kept.compute() == 2
    assert kept.all == [[1, "a"], [1, "b"]]
    kept.reset()
    assert kept.compute() == 0
    kept.update([None])
    assert kept.compute() == 1


def test_copies_are_apart() -> None:
    kept = Kept()
    kept.update(["a"])
    for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        other.update(["b"])
        assert (kept.compute(), other.compute()) == (1, 2)
        assert other.all == ["a", "b"]


@pytest.mark.parametrize(("item", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), ({1}, TypeError)])
def test_what_json_cannot_hold(item: Any, error: type[Exception]) -> None:
    kept = Kept()
    with pytest.raises(error):
        kept.update(["fine", item])
    assert kept.compute() == 0  # all or nothing


def test_bytes_of_a_process_without_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchmetrics sends an empty float tensor for it, which gloo would read as bytes of another number."""
    seen = []
    monkeypatch.setattr("fedlit.metrics.collected.gather_all_tensors", lambda state, _: seen.append(state) or [state])
    _gather_bytes(torch.tensor([]))
    assert seen[0].dtype is torch.uint8
    assert seen[0].shape == (0,)
