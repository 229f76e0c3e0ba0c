"""What waits for the end of a round comes back to the bit, from memory and from a file that nobody can find."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from fedlit.algebra.tensors import TensorDict, checksum
from fedlit.round.kept import InMemory, Kept, OnDisk


@pytest.fixture(params=["memory", "disk"])
def make_kept(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Kept]:
    return InMemory if request.param == "memory" else lambda: OnDisk(tmp_path)


def odd_tensors(seed: int) -> TensorDict:
    """Return tensors of several types with values that no arithmetic would give back."""
    generator = torch.Generator().manual_seed(seed)
    tensors: TensorDict = {}
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        tensor = torch.randn(3, 5, generator=generator, dtype=torch.float64).to(dtype)
        tensor[0] = torch.tensor([-0.0, float("nan"), float("inf"), torch.finfo(dtype).tiny / 4, 1.0]).to(dtype)
        tensors |= {f"{dtype}": tensor, f"{dtype}, turned": tensor.T, f"{dtype}, one number": tensor[1, 1]}
        tensors[f"{dtype}, empty"] = torch.empty(0, 4, dtype=dtype)
    return tensors | {"integers": torch.tensor([2**63 - 1, -(2**63)])}


def test_everything_comes_back_to_the_bit(make_kept: Callable[[], Kept]) -> None:
    """Type, shape and bytes, of several clients, written in parts and read in any order."""
    kept, clients = make_kept(), {client: odd_tensors(client) for client in (7, 3, 12)}
    expected = {client: checksum(tensors) for client, tensors in clients.items()}
    for client, tensors in clients.items():
        names = list(tensors)
        kept.put(client, {name: tensors[name] for name in names[:4]})
        kept.put(client, {name: tensors[name] for name in names[4:]})
    assert sorted(kept.clients()) == [3, 7, 12]
    for client in (12, 7, 3):
        back = {name: kept.get(client, name) for name in reversed(clients[client])}
        assert checksum(back) == expected[client]
        assert all(tensor.device == clients[client][name].device for name, tensor in back.items())


def test_nothing_is_kept_of_whom_nothing_was_put(make_kept: Callable[[], Kept]) -> None:
    kept = make_kept()
    assert list(kept.clients()) == []
    kept.put(1, {"x": torch.ones(2)})
    with pytest.raises(KeyError):
        kept.get(2, "x")
    with pytest.raises(KeyError):
        kept.get(1, "y")


def test_a_parameter_is_kept_without_its_graph(make_kept: Callable[[], Kept]) -> None:
    kept, parameter = make_kept(), torch.nn.Parameter(torch.randn(4))
    kept.put(0, {"x": parameter})
    assert torch.equal(kept.get(0, "x"), parameter)


def test_what_is_on_disk_is_no_longer_the_client_s_tensor(tmp_path: Path) -> None:
    """It is a copy: what trains on changes nothing, and what comes back may be written to."""
    kept, tensor = OnDisk(tmp_path), torch.ones(3)
    kept.put(0, {"x": tensor})
    tensor.zero_()
    kept.get(0, "x").add_(5)
    assert torch.equal(kept.get(0, "x"), torch.ones(3))


def open_files(folder: Path) -> int:
    """Return how many files of a folder this process has open, those without a name included."""
    targets = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            targets.append(os.readlink(entry))  # noqa: PTH115  Path.readlink would lose ` (deleted)`
        except FileNotFoundError:  # the listing's own
            continue
    return sum(target.startswith(f"{folder}/") for target in targets)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_file_is_left(tmp_path: Path) -> None:
    """Not even while the round lasts, so that a killed process leaves none; and its space is given back after it."""
    kept = OnDisk(tmp_path)
    kept.put(0, {"x": torch.randn(1000)})
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path) == 1
    del kept
    assert open_files(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make_kept", ["memory", "disk"], indirect=True)
def test_tensors_on_disk_are_not_in_memory(make_kept: Callable[[], Kept]) -> None:
    """Nor is what is read of them; in memory, they are."""
    kept, tensor = make_kept(), torch.ones(1000)
    storages = [StorageWeakRef(tensor.untyped_storage())]
    kept.put(0, {"x": tensor})
    storages.append(StorageWeakRef(kept.get(0, "x").untyped_storage()))
    del tensor
    assert {storage.expired() for storage in storages} == {isinstance(kept, OnDisk)}
