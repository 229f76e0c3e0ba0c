"""What travels between server and clients: named groups of tensors.

The group `model` is what the adapter shares. Others are declared by the part that makes them (`fedlit.round.jobs
.LocalPart`): SCAFFOLD's control variates, an optimizer's moments. All groups of a client are summed in one fixed-point
buffer by one all-reduce.
"""

from collections.abc import Mapping

from torch import Tensor

from fedlit.algebra.tensors import TensorDict

MODEL = "model"
"""The group that every method has; it is empty where nothing travels."""

Payload = Mapping[str, TensorDict]
"""Tensors by group and by parameter name."""


def flat(payload: Mapping[str, Mapping[str, Tensor]]) -> TensorDict:
    """Return the tensors of all groups under `<group>/<parameter>`, in the order of the groups."""
    return {f"{group}/{name}": tensor for group, tensors in payload.items() for name, tensor in tensors.items()}


def grouped(tensors: Mapping[str, Tensor]) -> dict[str, TensorDict]:
    """Return flat tensors as groups again; a group without a tensor is not among them."""
    groups: dict[str, TensorDict] = {}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    return groups
