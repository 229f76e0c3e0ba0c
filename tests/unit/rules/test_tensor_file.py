"""What is written tensor by tensor is read by safetensors, bit for bit, and is nothing after an error."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fedlit.rules.tensor_file import TensorFile


def test_types_of_all_widths_in_any_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "half": torch.randn(3, 1).half(),
        "wide ü": torch.randn(2, 5, dtype=torch.float64),
        "brain": torch.randn(6).bfloat16(),
        "strided": torch.randn(4, 6).T,
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }
    with TensorFile(tmp_path / "x.safetensors") as file:
        for key, tensor in tensors.items():
            file.add(key, tensor)
        assert not (tmp_path / "x.safetensors").exists()
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert loaded[key].dtype == tensor.dtype
        assert torch.equal(loaded[key], tensor)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    content = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert all(header[key]["data_offsets"][0] % tensor.element_size() == 0 for key, tensor in tensors.items())


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no more"), TensorFile(tmp_path / "x.safetensors") as file:
        file.add("a", torch.ones(3))
        raise ValueError("no more")
    assert list(tmp_path.iterdir()) == []
