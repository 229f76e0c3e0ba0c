"""What a site and the centre tell one another: named tensors and small facts, as bytes that any framework carries.

The bytes are a safetensors file whose metadata hold the facts as JSON: reading them runs no code. Layout matters to the
last bit of a product (`standing_alone`), so a transposed matrix travels as what it is a transpose of, and is turned
again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedlit.algebra.low_rank import PARTS, LowRank
from fedlit.algebra.tensors import TensorDict, on_cpu, standing_alone
from fedlit.errors import UserError

_KEY = "fedlit"


@dataclass(frozen=True, kw_only=True)
class Message:
    """Tensors by name, on the CPU, and facts that JSON holds: numbers, texts, lists and mappings of them.

    kind: `join`, `train`, `evaluate` or `export`, of what is asked and of the answer.
    """

    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tensors: TensorDict = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the message as the content of a safetensors file."""
        turned = sorted(name for name, tensor in self.tensors.items() if _is_turned(tensor))
        flat = {
            name: (tensor.T if name in turned else tensor).contiguous() for name, tensor in on_cpu(self.tensors).items()
        }
        told = {"kind": self.kind, "facts": dict(self.facts), "turned": turned}
        # Two names may share memory, which the format does not know.
        seen: set[int] = set()
        for name, tensor in flat.items():
            if tensor.data_ptr() in seen:
                flat[name] = tensor.clone()
            seen.add(tensor.data_ptr())
        data: bytes = save(flat, metadata={_KEY: json.dumps(told)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Message":
        """Return the message of these bytes.

        Raises:
            UserError: they are none.
        """
        try:
            tensors = {name: standing_alone(tensor) for name, tensor in load(data).items()}
            size = int.from_bytes(data[:8], "little")
            told = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_KEY])
            for name in told["turned"]:
                tensors[name] = tensors[name].T
            return cls(kind=str(told["kind"]), facts=dict(told["facts"]), tensors=tensors)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                "a message of another program came where one of fedlit was expected; "
                "use the app of the same export on all sites"
            ) from error

    def group(self, prefix: str) -> TensorDict:
        """Return the tensors whose names begin with `prefix` and a slash, under the rest of their names."""
        start = f"{prefix}/"
        return {name.removeprefix(start): each for name, each in self.tensors.items() if name.startswith(start)}


def _is_turned(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and not tensor.is_contiguous() and tensor.T.is_contiguous()


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> TensorDict:
    """Return tensors under names that begin with `prefix` and a slash."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def matrices_to_tensors(matrices: Mapping[str, LowRank]) -> TensorDict:
    """Return the parts of matrices under `<name>/<part>`: factors stay factors."""
    return {f"{name}/{part}": tensor for name, each in matrices.items() for part, tensor in each.parts.items()}


def matrices_of(tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
    """Return the matrices whose parts these are."""
    parts: dict[str, TensorDict] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("/")
        if part not in PARTS:
            raise UserError(
                f"a message holds {key}, which is no part of a matrix; use one version of fedlit everywhere"
            )
        parts.setdefault(name, {})[part] = tensor
    return {name: LowRank.of_parts(each) for name, each in parts.items()}


def to_device(tensors: Mapping[str, Tensor], device: torch.device) -> TensorDict:
    """Return the tensors on a device."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are the same to the last bit, zeros' signs included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    left, right = (each.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return torch.equal(left, right)
