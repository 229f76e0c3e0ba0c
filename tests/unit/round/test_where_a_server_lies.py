"""What a run goes on with lies in memory as what a checkpoint gives back: other strides or another alignment of equal
numbers are other bits of their products.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import ALIGNED, TensorDict, standing_alone
from fedlit.client.trainers.base import _all_on_cpu
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.checkpoint import Checkpoints


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


LYING = {
    "transposed": lambda: numbers(5, 7).T,
    "basis": lambda: torch.linalg.qr(numbers(7, 3)).Q,
    "one column of a basis": lambda: torch.linalg.qr(numbers(7, 1)).Q,
    "columns": lambda: numbers(7, 9)[:, 2:5],
    "a row of a table": lambda: numbers(4, 7, 3)[2],
    "behind one number": lambda: numbers(22)[1:].view(7, 3),
    "nothing of a matrix": lambda: numbers(7, 3)[:, :0],
    "rounded": lambda: numbers(5, 7, dtype=torch.bfloat16).T,
}


def place(tensor: Tensor) -> tuple[tuple[int, ...], int, int]:
    """Return what of a place in memory products depend on."""
    return tensor.stride(), tensor.storage_offset(), tensor.data_ptr() % ALIGNED


@pytest.fixture(params=LYING)
def lying(request: pytest.FixtureRequest) -> Tensor:
    make: Callable[[], Tensor] = LYING[request.param]
    return make()


def test_a_tensor_that_lies_otherwise_is_copied(lying: Tensor) -> None:
    found = standing_alone(lying)
    assert place(found) == place(torch.empty(lying.shape, dtype=lying.dtype))
    assert torch.equal(found, lying)
    assert found.dtype == lying.dtype
    assert not found.requires_grad


@pytest.mark.parametrize("shape", [(), (0,), (3,), (7, 3), (7, 1), (1, 7), (2, 0, 3), (2, 3, 4)])
def test_new_memory_is_left_alone(shape: tuple[int, ...]) -> None:
    tensor = torch.zeros(shape)
    assert standing_alone(tensor) is tensor


@pytest.mark.parametrize("part", ServerState.part_names())
def test_every_part_of_a_server_stands(part: str, lying: Tensor) -> None:
    tensors: TensorDict = {"other": numbers(2, 3), "lying": lying}
    parts = {"shared": {"weight": numbers(1)}, part: tensors}
    for server in (ServerState(**parts), replace(ServerState(shared={}), **parts)):
        found = server.parts()[part]
        assert place(found["lying"]) == place(torch.empty(lying.shape, dtype=lying.dtype))
        assert torch.equal(found["lying"], lying)
        assert found["other"] is tensors["other"]
    assert tensors["lying"] is lying  # the caller's own table is its own


def test_what_is_folded_stands() -> None:
    """As by `aggregate_by=sums`: a basis from QR, whose columns lie one after the other, and a transposed sum."""
    layer = LoraLayer(name="q", weight="q.weight", a="q.A", b="q.B", rank=2, alpha=4.0)
    server = ServerState(shared={"q.A": numbers(2, 40), "q.B": numbers(30, 2)}, layers=(layer,))
    change = LowRank(torch.linalg.qr(numbers(30, 3, dtype=torch.float64)).Q, numbers(40, 3, dtype=torch.float64).T)
    folded = server.fold({"q": change})
    assert folded.frozen.keys() == {"q.weight/left", "q.weight/right"}
    for tensor in folded.frozen.values():
        assert place(tensor) == place(torch.empty(tensor.shape))


def test_a_checkpoint_gives_back_the_places(tmp_path: Path) -> None:
    """safetensors maps its file: a tensor begins wherever the header and the tensors before it end."""
    tensors = {name: make() for name, make in LYING.items()}
    records = tmp_path / "metrics.jsonl"
    records.write_text('{"round": 0}\n', encoding="utf-8")
    server = ServerState(shared=tensors, frozen={"odd": numbers(1), "w": numbers(7, 7), "z": numbers(3, 5)})
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=1)
    checkpoints.save(server, {}, set(), records)
    checkpoints.settle()
    path, _ = checkpoints.newest()
    assert path is not None
    found, _ = checkpoints.load(path, torch.device("cpu"), set())
    for part, tensors in server.parts().items():
        for name, tensor in tensors.items():
            assert place(found.parts()[part][name]) == place(tensor), name
            assert torch.equal(found.parts()[part][name], tensor)


def test_an_optimizer_s_state_lies_as_its_file_gives_it_back(tmp_path: Path) -> None:
    """Its gaps are kept, by torch.save too; what has none does not begin in the middle of an allocation."""
    state = _all_on_cpu({"state": {0: {name: make() for name, make in LYING.items()}}, "param_groups": []})
    (tmp_path / "metrics.jsonl").write_text('{"round": 0}\n', encoding="utf-8")
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints", keep=1)
    checkpoints.save(ServerState(shared={}), {4: ClientState(optimizer=state)}, {4}, tmp_path / "metrics.jsonl")
    checkpoints.settle()
    path, _ = checkpoints.newest()
    assert path is not None
    _, clients = checkpoints.load(path, torch.device("cpu"), {4})
    optimizer = clients[4].optimizer
    assert optimizer is not None
    for name, tensor in state["state"][0].items():
        assert place(optimizer["state"][0][name]) == place(tensor), name
        assert torch.equal(optimizer["state"][0][name], LYING[name]())
