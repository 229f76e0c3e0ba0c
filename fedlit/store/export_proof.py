"""That a run's result can be written, shown on the meta device before anything is trained."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedlit.adapters import Adapter
from fedlit.algebra.merging import merged_weights
from fedlit.errors import UserError


def pretrained_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of a model's parameters by all their names, those of tied ones too."""
    return {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}


def require_exportable(
    adapter: Adapter, model: nn.Module, pretrained: Mapping[str, torch.Size], head: Mapping[str, Tensor]
) -> None:
    """Refuse a run whose result could not be written when it ends.

    Every tensor of the result is computed on the meta device and held against the pretrained model: it is one of its
    weights, under its name and in its shape. A PEFT adapter is W + change too, so this is asked of both forms.

    Args:
        adapter: of the run.
        model: the model with the adapter in it, on the meta device.
        pretrained: pretrained_shapes of the model before the adapter was put in.
        head: the trained classification head by parameter name.

    Raises:
        UserError: names the tensor that the pretrained model has not, or has in another shape.
    """
    layers, kind = adapter.layers(model), type(adapter).__name__
    tensors = {name: parameter.data for name, parameter in model.named_parameters()}
    lost = [name for layer in layers for name in (*layer.factors, layer.weight) if name not in tensors]
    if lost:
        raise UserError(
            f"the result could not be written: {lost[0]} of adapter {kind} is no parameter of the model; choose other "
            "method.target_modules"
        )
    result = adapter.merged(model) | merged_weights(layers, tensors) | dict(head)
    for name, tensor in result.items():
        if name not in pretrained:
            raise UserError(
                f"the result could not be written: adapter {kind} changes {name}, which the pretrained model does not "
                "have; choose other method.target_modules"
            )
        if tensor.shape != pretrained[name]:
            raise UserError(
                f"the result could not be written: adapter {kind} makes {name} {tuple(tensor.shape)}, which is "
                f"{tuple(pretrained[name])} in the pretrained model; choose other method.target_modules"
            )
