"""A method: an adapter, a local optimizer, a rule, and what stands between them, built and checked."""

from dataclasses import dataclass, field

import torch
from torch import nn

from fedlit.adapters import Adapter, Calibration
from fedlit.algebra.tensors import TensorDict
from fedlit.client.optimizers import LocalOptimizer
from fedlit.models import Projections, head_parameters
from fedlit.round.jobs import LocalPart
from fedlit.round.plan import Weigh
from fedlit.round.rules import AggregationRule
from fedlit.round.rules.fedavg import NoAggregation
from fedlit.round.transforms import Transforms


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A recipe with its parts built.

    transforms: between the clients and the rule. parts: what takes part in local training beside the optimizer.
    A classification head is trained beside the adapter's tensors; private_head keeps it with its client.
    """

    name: str
    adapter: Adapter
    optimizer: LocalOptimizer
    rule: AggregationRule
    weights: Weigh
    pooled: bool
    transforms: Transforms = field(default_factory=Transforms)
    parts: tuple[LocalPart, ...] = ()
    private_head: bool = False

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the payload groups beside the model."""
        return tuple(part.group for part in self.parts if part.group)

    @property
    def communicates(self) -> bool:
        """Whether anything travels at all."""
        return not isinstance(self.rule, NoAggregation)

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        """Put the adapter into `model`, and let the head train; returns what Adapter.attach returns."""
        facts = self.adapter.attach(model, projections, calibration)
        for parameter in head_parameters(model).values():
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
            parameter.requires_grad_(True)
        return facts

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the live tensors that travel: the adapter's choice and the head, nothing without a rule."""
        if not self.communicates:
            return {}
        tensors, head = self.adapter.shared(model), self.head(model)
        if self.private_head:
            return {name: tensor for name, tensor in tensors.items() if name not in head}
        return tensors | head

    @staticmethod
    def head(model: nn.Module) -> TensorDict:
        """Return the live tensors of the classification head; none of a language model."""
        return {name: parameter.data for name, parameter in head_parameters(model).items()}

    def private(self, model: nn.Module) -> TensorDict:
        """Return the live trained tensors that stay with their client."""
        if self.communicates:
            return self.adapter.private(model) | (self.head(model) if self.private_head else {})
        # Not what is trainable at the moment: an adapter may train some tensors in one round and others in the next.
        return self.adapter.shared(model) | self.adapter.private(model) | self.head(model)
