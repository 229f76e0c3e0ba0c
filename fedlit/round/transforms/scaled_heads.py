"""Ravan: what a client sends of a head is the product of its scale and its core.

Raje et al., arXiv 2506.05568. A layer is linear in s_h H_h, and not in s_h and H_h each, so that the mean of the
products is the exact mean of the clients' weights. The server's scales are 1 in every round, and so nobody sends them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState
from fedlit.round.transforms.base import Transform


@dataclass(frozen=True)
class ScaledHeads(Transform):
    """H_h, s_h -> s_h H_h, 1."""

    needs: ClassVar[frozenset[str]] = frozenset("H")

    def on_client(self, payload: Payload, server: ServerState, plan: RoundPlan, client_id: int) -> Payload:
        """Return the client's cores with their scales in them."""
        tensors = dict(payload[MODEL])
        for layer in server.layers:
            assert layer.core is not None and layer.scale is not None, "an adapter that sends heads has both"
            cores, scale = tensors[layer.core], tensors[layer.scale]  # (h r, r), (h,)
            tensors[layer.core] = cores * scale.repeat_interleave(cores.shape[1])[:, None]
            tensors[layer.scale] = torch.ones_like(scale)
        return {**payload, MODEL: tensors}

    def on_server(self, mean: Payload, server: ServerState, plan: RoundPlan) -> Payload:
        """Return the means with scales of 1, which noise may have moved."""
        tensors = dict(mean[MODEL])
        for name in self.unsent(server):
            tensors[name] = torch.ones_like(tensors[name])
        return {**mean, MODEL: tensors}

    def unsent(self, server: ServerState) -> frozenset[str]:
        """Return the scales."""
        return frozenset(layer.scale for layer in server.layers if layer.scale is not None)
