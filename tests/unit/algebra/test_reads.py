"""Values that are read together: one wait for all, each its own."""

import pytest
import torch
from torch import Tensor

from fedlit.algebra.reads import Reads


def test_one_read_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    tolist = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: [waits.append(tensor.numel()), tolist(tensor)][1])
    reads = Reads()
    losses, second = torch.tensor([0.1, float("nan"), 3.0]), torch.tensor(2.5, dtype=torch.float64)
    asked = [reads.later(values) for values in (losses, second, torch.zeros(0))]
    second.zero_()
    assert not waits
    assert asked[1]() == [2.5]
    assert asked[0]() == pytest.approx([0.1, float("nan"), 3.0], nan_ok=True, rel=1e-7)
    assert asked[2]() == []
    assert waits == [4]
    after = reads.later(torch.ones(2))
    assert after() == after() == [1.0, 1.0]
    assert waits == [4, 2]
