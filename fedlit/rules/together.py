"""Several folders of adapters: whether they belong together, and the mean of what was trained whole."""

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from fedlit.errors import UserError
from fedlit.rules.folders import AdapterFolder


def require_same(first: AdapterFolder, other: AdapterFolder, backbone: str | None) -> None:
    """Refuse two adapters that do not change the same layers of the same model.

    Args:
        first: one of them.
        other: the other one.
        backbone: the model of both, where their own notes of it may differ.

    Raises:
        UserError: names both folders and what differs.
    """
    if backbone is None and first.backbone and other.backbone and first.backbone != other.backbone:
        raise UserError(
            f"{other.path} was trained on {other.backbone} and {first.path} on {first.backbone}; give adapters of one "
            "model, or --base-model=NAME if these are the same"
        )
    for less, more in ((first, other), (other, first)):
        if lacking := [name for name in more if name not in less]:
            remedy = "give adapters with the same target modules"
            if less.path.name.isdigit():
                remedy = "peft leaves out layers of an adapter whose name is a number: save it under another name"
            raise UserError(
                f"{less.path} has no layer {lacking[0]}, which {more.path} has ({len(lacking)} such); {remedy}"
            )
    for name in first:
        ours, theirs = _shape(first, name), _shape(other, name)
        if ours != theirs:
            raise UserError(f"{other.path}: layer {name} is {theirs} (out, in), in {first.path} it is {ours}")
    if set(first.others) != set(other.others):
        key = sorted(set(first.others) ^ set(other.others))[0]
        raise UserError(f"{first.path} or {other.path} lacks {key}, which the other has trained; give both or neither")
    for key in first.others:
        if first.shape(key) != other.shape(key):
            raise UserError(f"{other.path}: {key} is {other.shape(key)}, in {first.path} it is {first.shape(key)}")


def means_of_others(
    folders: Sequence[AdapterFolder], shares: Sequence[float], dtype: torch.dtype | None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the weighted means of what was trained whole, by key, in `dtype` or the finest of their own types."""
    for key in folders[0].others:
        total = torch.zeros(folders[0].shape(key), dtype=torch.float64)
        for folder, share in zip(folders, shares, strict=True):
            total.add_(folder.tensor(key), alpha=share)
        yield key, total.to(dtype or reduce(torch.promote_types, {folder.headers[key].dtype for folder in folders}))


def _shape(folder: AdapterFolder, name: str) -> tuple[int, int]:
    a, b, _ = folder.factors[name]
    return folder.shape(b)[0], folder.shape(a)[1]
