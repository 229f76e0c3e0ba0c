"""Weights that two modules share, as a language model's output projection and its embedding often do."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import nn


def any_tied(model: nn.Module, paths: Iterable[str]) -> bool:
    """Return whether the weight of one of these modules is that of another module too."""
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return any(owners[id(model.get_submodule(path).weight)] > 1 for path in paths)


def untie(model: Any) -> None:
    """Give every module of a transformers model tensors of its own, with the values that they shared.

    The model's configuration says so from then on, in memory and in the files that it is stored as: whoever loads them
    finds all tensors there.
    """
    seen: set[int] = set()
    for path, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) in seen:
            parent, _, name = path.rpartition(".")
            own = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            setattr(model.get_submodule(parent), name, own)
        seen.add(id(parameter))
    model.config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}
