"""The clients of one round as one distributed value, which a rule asks for its mean or its stack.

The mean is exact in order: every client's contribution p_i * (x_i - x), x being the server's tensor, is computed in
float64, rounded to a 64-bit integer with 44 fraction bits and added up as the clients finish; one integer all-reduce
over one flat buffer sums the processes. Integer addition is associative, so neither the number of processes nor the
order of the clients changes a bit, and a tensor that no client changed is the server's to the last bit. Each
contribution is rounded once, so the error of the mean of n clients is at most n * 2**-45 for values of ordinary size
(float64's own rounding is larger above about 2**8).

Shapes: n clients, P scalars in all shared tensors together; p_i >= 0 with sum 1 are the clients' weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedlit.algebra.tensors import TensorDict
from fedlit.errors import DivergenceError
from fedlit.process import communication
from fedlit.seeding import numpy_generator

FRACTION_BITS = 44
LARGEST = 2.0 ** (61 - FRACTION_BITS)
"""A shared value must stay below this (131,072), so that no weighted sum of differences leaves the 64 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientUpdate:
    """What one client hands in after its local training.

    num_examples is its training rows; shared are its tensors that travel; metrics are plain numbers for the record;
    private are the trained tensors that it keeps, which a simulation can look at and a server cannot; control is the
    change of its control variate (SCAFFOLD), which it sends.
    """

    client_id: int
    num_examples: int
    shared: TensorDict
    metrics: dict[str, float]
    private: TensorDict = field(default_factory=dict)
    control: TensorDict = field(default_factory=dict)


def sample_cohort(num_clients: int, cohort_size: int, seed: int, round_idx: int) -> tuple[int, ...]:
    """Return the sorted client ids of a round, drawn without replacement: a pure function of seed and round."""
    if cohort_size == num_clients:
        return tuple(range(num_clients))
    generator = numpy_generator(seed, "cohort", round_idx=round_idx)
    return tuple(sorted(int(client) for client in generator.choice(num_clients, size=cohort_size, replace=False)))


def weights_by_examples(num_examples: Sequence[int]) -> tuple[float, ...]:
    """Return p_i = num_examples_i / sum, in float64."""
    total = sum(num_examples)
    return tuple(count / total for count in num_examples)


def uniform_weights(num_examples: Sequence[int]) -> tuple[float, ...]:
    """Return p_i = 1 / n."""
    return (1.0 / len(num_examples),) * len(num_examples)


class Cohort:
    """The updates of the clients of one round, wherever they were trained.

    Args:
        client_ids: the cohort in its order, the same on every process.
        weights: p_i of each client, summing to 1.
        like: the shared tensors of the server; names, shapes, types and device of every update.
        round_idx: for error messages.
        stacks: keep the clients' tensors, so that `stack` can be called.
        private: names, shapes and types of what clients keep, on the device of `like`, for `stack`.
    """

    def __init__(
        self,
        client_ids: Sequence[int],
        weights: Sequence[float],
        like: Mapping[str, Tensor],
        *,
        round_idx: int,
        stacks: bool,
        private: Mapping[str, Tensor] | None = None,
    ) -> None:
        assert len(client_ids) == len(weights) > 0
        assert abs(sum(weights) - 1.0) < 1e-9
        self.client_ids = tuple(client_ids)
        self.weights = dict(zip(client_ids, weights, strict=True))
        self.round_idx = round_idx
        self._like = dict(like)
        self._kept_like = {**(private or {}), **like}
        self._stacks = stacks
        self._kept: dict[int, TensorDict] = {}
        self._added: set[int] = set()
        sizes = [tensor.numel() for tensor in self._like.values()]
        self._device = next(iter(self._like.values())).device if self._like else None
        self._sum = torch.zeros(sum(sizes), dtype=torch.int64, device=self._device)
        self._slices = dict(zip(self._like, torch.split(self._sum, sizes), strict=True)) if self._like else {}
        self._mean: TensorDict | None = None

    @torch.no_grad()
    def add(self, update: ClientUpdate) -> None:
        """Take in one client trained on this process.

        Raises:
            DivergenceError: a tensor of the update is not finite or too large for the fixed-point sum.
        """
        assert update.client_id in self.weights, f"client {update.client_id} is not of this cohort"
        assert update.client_id not in self._added, f"client {update.client_id} was added twice"
        assert update.shared.keys() == self._like.keys()
        self._require_summable(update)
        scale = self.weights[update.client_id]
        for name, total in self._slices.items():
            # A copy also of a float64 tensor, which the in-place product would otherwise change under its client.
            contribution = update.shared[name].reshape(-1).to(torch.float64, copy=True)
            contribution.sub_(self._like[name].reshape(-1)).mul_(scale)
            total.add_(contribution.mul_(2.0**FRACTION_BITS).round_().long())
        self._added.add(update.client_id)
        if self._stacks:
            self._kept[update.client_id] = {**update.private, **update.shared}

    def mean(self) -> TensorDict:
        """Return sum_i p_i x_i of every shared tensor, in the tensors' own types; one collective, made once."""
        if self._mean is None:
            communication.sum_in_place(self._sum)
            # In pieces, so that the float64 copy is of one tensor, not of the model.
            self._mean = {name: self._moved(name, total) for name, total in self._slices.items()}
        return self._mean

    def _moved(self, name: str, total: Tensor) -> Tensor:
        """Return the server's tensor x moved by the fixed-point sum of p_i (x_i - x)."""
        start = self._like[name]
        return (start.double() + (total.double() * 2.0**-FRACTION_BITS).view(start.shape)).to(start.dtype)

    def stack(self, names: Sequence[str]) -> TensorDict:
        """Return each named tensor of every client, shape (n, *shape), along the cohort's order; one collective.

        The clients' rows are disjoint, so the processes' buffers are summed as integers: exact, signs of zero included.
        """
        assert self._stacks, "a rule that calls stack() must say so"
        like = [self._kept_like[name] for name in names]
        assert len({tensor.dtype for tensor in like}) == 1, "one type of tensors in one stack"
        integers = {4: torch.int32, 8: torch.int64}[like[0].element_size()]
        sizes = [tensor.numel() for tensor in like]
        rows = torch.zeros(len(self.client_ids), sum(sizes), dtype=integers, device=self._device)
        for row, client_id in zip(rows, self.client_ids, strict=True):
            if client_id in self._kept:
                row.copy_(torch.cat([self._kept[client_id][name].reshape(-1) for name in names]).view(integers))
        communication.sum_in_place(rows)
        columns = torch.split(rows.view(like[0].dtype), sizes, dim=1)
        return {
            name: column.reshape(len(self.client_ids), *tensor.shape)
            for name, column, tensor in zip(names, columns, like, strict=True)
        }

    def _require_summable(self, update: ClientUpdate) -> None:
        if not update.shared:
            return
        peaks = torch.stack([tensor.detach().abs().amax().double() for tensor in update.shared.values()]).tolist()
        for name, peak in zip(update.shared, peaks, strict=True):
            if not peak < LARGEST:  # also true for NaN
                raise DivergenceError(
                    f"round {self.round_idx + 1}, client {update.client_id}: {name} has magnitude {peak}, "
                    f"finite values below {LARGEST:.0f} are needed; lower local.lr or set local.max_grad_norm"
                )
