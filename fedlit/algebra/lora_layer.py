"""What a LoRA layer is called and how its factors become a change of its weight; the rules' view of an adapter.

Shapes: W (out, in), A (r, in), B (out, r), core C (r, r): W + scaling * B @ A, or W + scaling * B @ C @ A. Of h heads
of rank q, h q = r, the cores H (h q, q) stand one below the other, C is block-diagonal with the blocks s_i H_i, and the
scales are s (h,).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlit.algebra.low_rank import LowRank


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraLayer:
    """Names of one layer's tensors, and its scaling.

    name: the module; a, b, core, weight: parameter names (core is None for LoRA's two factors). scale: of the heads'
    scales, None without heads.
    transposed: the weight is stored as (in, out), as in GPT-2's Conv1D.
    rank: rows of A as stored. client_ranks: rank of every client by id, none above `rank`; empty if all have `rank`.
    A client of a smaller rank holds zeros in the other rows of A and columns of B, which training leaves at zero: each
    factor's gradient is a product with the other.
    """

    name: str
    a: str
    b: str
    weight: str
    rank: int
    alpha: float
    core: str | None = None
    scale: str | None = None
    use_rslora: bool = False
    transposed: bool = False
    client_ranks: tuple[int, ...] = ()

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the factors."""
        return tuple(name for name in (self.a, self.b, self.core, self.scale) if name is not None)

    def rank_of(self, client_id: int | None) -> int:
        """Return the rank of a client's factors; None is the server."""
        return self.client_ranks[client_id] if self.client_ranks and client_id is not None else self.rank

    def scaling(self, client_id: int | None = None) -> float:
        """Return alpha / r, or alpha / sqrt(r) with rsLoRA, for a client's rank or the server's."""
        rank = self.rank_of(client_id)
        return float(self.alpha / (rank**0.5 if self.use_rslora else rank))

    def change(self, tensors: Mapping[str, Tensor], client_id: int | None = None) -> LowRank:
        """Return scaling * B @ A (or B @ C @ A) in float64, from tensors by parameter name."""
        left, right = tensors[self.b].double(), tensors[self.a].double()
        if self.core is not None and self.scale is not None:
            left = through_heads(left, tensors[self.core].double(), tensors[self.scale].double())
        elif self.core is not None:
            left = left @ tensors[self.core].double()
        return LowRank(left, right) * self.scaling(client_id)

    def oriented(self, change: LowRank) -> LowRank:
        """Return a change of W (out, in) in the layout in which the weight is stored."""
        return change.T if self.transposed else change


def through_heads(left: Tensor, cores: Tensor, scales: Tensor) -> Tensor:
    """Return (n, h q), the columns of (n, h q) head by head times s_i H_i, of cores (h q, q) and scales (h,)."""
    num_heads, rank = len(scales), cores.shape[1]
    columns, blocks = left.reshape(-1, num_heads, rank), cores.view(num_heads, rank, rank)
    return torch.einsum("nhi,hij,h->nhj", columns, blocks, scales).flatten(1)
