"""Messages and states are bytes and come back to the last bit; what is none of them is refused in one line."""

import math

import pytest
import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import ALIGNED
from fedlit.errors import UserError
from fedlit.round.jobs import ClientState
from fedlit.sites.kept import Kept
from fedlit.sites.messages import Message, matrices_of, matrices_to_tensors, same_bits


def tensors() -> dict[str, Tensor]:
    wide = torch.arange(12, dtype=torch.float64).view(3, 4) / 7
    return {
        "half": (torch.arange(6).view(2, 3) / 3).bfloat16(),
        "scalar": torch.tensor(-0.0, dtype=torch.float64),
        "turned": wide.T,
        "part": wide[:, 1:3],
        "whole": wide,
        "again": wide,
        "empty": torch.zeros(0, 5),
        "not finite": torch.tensor([math.nan, math.inf]),
        "a.b/c/left": torch.ones(2, 1),
    }


def test_tensors_facts_and_layout_come_back() -> None:
    facts = {"round_idx": 3, "metrics": {"loss": 0.1 + 0.2, "matrix": [[1, 2], [3, 4]]}, "failure": None, "name": "für"}
    message = Message(kind="train", facts=facts, tensors=tensors())
    found = Message.from_bytes(message.to_bytes())
    assert (found.kind, found.facts) == ("train", facts)
    assert found.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert same_bits(found.tensors[name], tensor), name
    assert found.tensors["turned"].stride() == tensors()["turned"].stride(), "a product's last bits may depend on it"
    assert all(tensor.data_ptr() % ALIGNED == 0 for tensor in found.tensors.values())
    assert found.group("a.b") == {"c/left": found.tensors["a.b/c/left"]}


@pytest.mark.parametrize("data", [b"", b"x", b"\x10" + bytes(30), Message(kind="train").to_bytes()[:-1][:20]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UserError, match="another program"):
        Message.from_bytes(data)


def test_matrices_stay_factors() -> None:
    thin = LowRank(torch.randn(4, 2), torch.randn(2, 6))
    dense = LowRank(torch.zeros(4, 0), torch.zeros(0, 6), torch.randn(4, 6))
    sent = matrices_to_tensors({"layer.0": thin, "layer.1": dense})
    assert sorted(sent) == ["layer.0/left", "layer.0/right", "layer.1/rest"]
    found = matrices_of(sent)
    assert torch.equal(found["layer.0"].left, thin.left)
    assert torch.equal(found["layer.1"].dense(), dense.dense())
    with pytest.raises(UserError, match="no part of a matrix"):
        matrices_of({"layer.0/middle": thin.left})


def test_zeros_of_other_signs_are_other_bits() -> None:
    zero = torch.zeros(2)
    assert same_bits(zero, zero.clone())
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero.double())
    assert not same_bits(zero, torch.zeros(3))


def test_a_state_comes_back() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    client = ClientState(
        private={"b": torch.ones(2, 3).T}, parts={"control": {"b": torch.zeros(2)}}, optimizer=optimizer.state_dict()
    )
    kept = Kept(client=client, frozen={"w/left": torch.ones(2, 1)}, round_idx=4)
    found = Kept.from_bytes(kept.to_bytes())
    assert found.round_idx == 4
    assert found.client.private["b"].stride() == client.private["b"].stride()
    assert found.client.optimizer is not None
    assert torch.equal(found.client.optimizer["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert found.frozen.keys() == {"w/left"}
    for data in (b"", b"nothing", kept.to_bytes()[:50]):
        with pytest.raises(UserError, match="begins anew"):
            Kept.from_bytes(data)
