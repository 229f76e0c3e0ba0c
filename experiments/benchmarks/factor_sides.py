"""The two ways to aggregate one LoRA layer: fedlit's rule over factors, and the dense matrices of plain PyTorch.

Shapes: n clients, A (n, r, in), B (n, out, r), W (out, in). Both ways start from the clients' stacked factors and their
means, which are the same for both, and end with the server's tensors in float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.mean_products import mean_product
from fedlit.algebra.tensors import TensorDict
from fedlit.round.plan import weights_by_examples
from fedlit.round.rules import AggregationRule
from fedlit.round.rules.fedex_lora import FedExLora
from fedlit.round.rules.fedsvd import FedSvd
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.rules.flora import Flora
from fedlit.round.server import ServerState

RULES: dict[str, AggregationRule] = {
    "FlexLoRA": FlexLora(),
    "FedEx-LoRA": FedExLora(),
    "FLoRA": Flora(),
    "FedSVD": FedSvd(),
}


@dataclass(frozen=True)
class Stacked:
    """What a rule asks of a round's cohort, with the answers at hand: collectives are on neither side."""

    weights: dict[int, float]
    stacked: TensorDict
    means: TensorDict

    @property
    def client_ids(self) -> tuple[int, ...]:
        """The clients in their order."""
        return tuple(self.weights)

    def stack(self, names: Sequence[str]) -> TensorDict:
        """Return the clients' tensors."""
        return {name: self.stacked[name] for name in names}

    def mean(self, group: str = "model") -> TensorDict:
        """Return their means."""
        return dict(self.means)


class Case:
    """One layer and its round.

    Args:
        shape: (out, in).
        num_clients: n.
        rank: r of all clients.
        held: the layer's weight has a dense change from earlier rounds; else none.
    """

    def __init__(self, shape: tuple[int, int], num_clients: int, rank: int, *, held: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        num_out, num_in = shape
        self.shape, self.rank = shape, rank
        self.layer = LoraLayer(name="l", a="l.A", b="l.B", weight="l.W", rank=rank, alpha=2.0 * rank)
        self.a = torch.randn(num_clients, rank, num_in, generator=generator) * num_in**-0.5
        self.b = torch.randn(num_clients, num_out, rank, generator=generator) * 0.1
        shares = weights_by_examples([10 + 5 * index for index in range(num_clients)])
        self.p = torch.tensor(shares, dtype=torch.float64)
        self.a_mean, self.b_mean = (torch.tensordot(self.p.float(), every, 1) for every in (self.a, self.b))
        names = {self.layer.a: self.a, self.layer.b: self.b}
        means = {self.layer.a: self.a_mean, self.layer.b: self.b_mean}
        self.cohort: Any = Stacked(dict(enumerate(shares)), names, means)
        self.weight = torch.randn(shape, generator=generator) * 0.02
        frozen = {"l.W/rest": torch.randn(shape, generator=generator) * 1e-4} if held else {}
        self.server = ServerState(shared=means, layers=(self.layer,), frozen=frozen)

    def factors(self, name: str) -> ServerState:
        """Return the server after fedlit's rule."""
        return RULES[name](self.cohort, self.server)

    def dense(self, name: str) -> Callable[[], tuple[Tensor, ...]]:
        """Return the dense way of a rule, in float32, which is the faster type."""
        return {
            "FlexLoRA": self._svd_of_mean_product,
            "FedSVD": self._svd_of_product,
            "FedEx-LoRA": self._add_residual,
            "FLoRA": self._add_product,
        }[name]

    def product(self) -> Tensor:
        """Return sum_i p_i s B_i A_i, one product of matrices for all clients: no (out, in) matrix for each."""
        return self._left() @ self.a.flatten(0, 1)

    def _left(self) -> Tensor:
        weighted: Tensor = self.b * (self.p.float() * self.layer.scaling())[:, None, None]
        return weighted.transpose(0, 1).flatten(1)

    def _svd_of_mean_product(self) -> tuple[Tensor, ...]:
        a, b = self._truncated(self.product())
        return a, b / self.layer.scaling()

    def _svd_of_product(self) -> tuple[Tensor, ...]:
        return self._truncated(self.b_mean @ self.a_mean)

    def _truncated(self, product: Tensor) -> tuple[Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(product, full_matrices=False)
        return vh[: self.rank], u[:, : self.rank] * s[: self.rank]

    def _add_residual(self) -> tuple[Tensor, ...]:
        residual = self.product() - self.layer.scaling() * (self.b_mean @ self.a_mean)
        return (self.weight.add_(residual),)

    def add_in_one_product(self) -> tuple[Tensor, ...]:
        """The residual of FedEx-LoRA as one product that goes straight into W: the least that a dense way can do."""
        left = torch.cat([self._left(), self.b_mean * -self.layer.scaling()], 1)
        return (self.weight.addmm_(left, torch.cat([self.a.flatten(0, 1), self.a_mean])),)

    def _add_product(self) -> tuple[Tensor, ...]:
        bound = self.shape[1] ** -0.5
        fresh = torch.empty_like(self.a_mean).uniform_(-bound, bound), torch.zeros_like(self.b_mean)
        return (self.weight.addmm_(self._left(), self.a.flatten(0, 1)), *fresh)

    def errors(self, name: str) -> tuple[float, float]:
        """Return how far both ways are from float64, relative Frobenius norms: from factors, densely."""
        exact = self._exact(name)
        if name in ("FlexLoRA", "FedSVD"):
            after = self.factors(name).shared
            a, b = self.dense(name)()
            own, other = (self._product_of(*pair) for pair in ((after[self.layer.a], after[self.layer.b]), (a, b)))
            if name == "FedSVD":
                own, other = own * (1 / self.layer.scaling()), other * (1 / self.layer.scaling())
            return _distance(own, exact), _distance(other, exact)
        held = replace(self.factors(name), shared={}).change(self.layer)
        assert held is not None
        self.weight.zero_()
        dense = self.dense(name)()[0]
        target = exact.dense()
        old = self.server.change(self.layer)
        if old is not None:
            assert old.rest is not None
            target += old.rest
            dense += old.rest
        scale = target.norm()
        return float((held.to(torch.float64).dense() - target).norm() / scale), float((dense - target).norm() / scale)

    def _product_of(self, a: Tensor, b: Tensor) -> LowRank:
        return self.layer.change({self.layer.a: a, self.layer.b: b})

    def _exact(self, name: str) -> LowRank:
        mean = mean_product(self.a, self.b, self.p, self.layer.scaling())
        match name:
            case "FlexLoRA":
                return mean.truncated_by_svd(self.rank)
            case "FedSVD":
                return LowRank(self.b_mean.double(), self.a_mean.double())
            case "FedEx-LoRA":
                return mean - self._product_of(self.a_mean, self.b_mean)
            case _:
                return mean


def _distance(own: LowRank, exact: LowRank) -> float:
    return (own - exact).norm() / exact.norm()


class Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what operations return: the scalars of the largest tensor, and tensors of the shape of W, no views."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape, self.largest, self.num_dense = shape, 0, 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor) and value._base is None and not func._schema.is_mutable:
                self.largest = max(self.largest, value.numel())
                self.num_dense += tuple(value.shape) == self.shape
        return result
