"""The clients of one round as one distributed value, which a rule asks for a mean or for the stack.

The mean is exact in order: every client's contribution p_i * (x_i - x), x being the server's tensor, goes through the
fixed-point sum, and the server's tensor is moved by it. All groups of the payload are in one buffer, summed by one
collective.

Shapes: n clients with weights p_i >= 0 that sum to 1. Of the clients in the plan some may be lost; the weights of the
others are then divided by their sum.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fedlit.algebra.pieces import largest
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import DivergenceError, UserError
from fedlit.process import communication
from fedlit.round.fixed_point import LARGEST, FixedPointSum, decode, encode
from fedlit.round.kept import InMemory, Kept
from fedlit.round.payload import MODEL, Payload, flat, grouped
from fedlit.round.plan import RoundPlan


class Cohort:
    """What the clients of one round sent, wherever they were trained.

    Args:
        plan: who should send, with what weight.
        server: the server's tensors of every group: names, shapes, types and device of every payload.
        keeps: keep single clients' tensors until the round ends, for `stack` and `mean_of`.
        on_server: what becomes of the means before the rule sees them (Transforms.on_server).
    """

    def __init__(
        self,
        plan: RoundPlan,
        server: Payload,
        *,
        keeps: bool = False,
        on_server: Callable[[Payload], Payload] | None = None,
    ) -> None:
        assert not plan.weights or abs(sum(plan.weights.values()) - 1.0) < 1e-9, "the planned weights sum to 1"
        self.plan = plan
        self.client_ids = plan.arriving
        self._server = {group: dict(tensors) for group, tensors in server.items()}
        self._like = flat(server)
        self._total = FixedPointSum(self._like)
        self._keeps = keeps
        self._kept: Kept = InMemory()
        self._added: set[int] = set()
        self._on_server = on_server
        self._means: dict[str, TensorDict] | None = None

    def add(self, client_id: int, payload: Payload, peak: float | None = None) -> None:
        """Take in one client trained on this process.

        `peak` is the largest magnitude in its tensors (`largest`), if it has been read; else it is read here, which
        waits for the device.

        Raises:
            DivergenceError: a tensor is not finite or too large for the fixed-point sum; nothing was added then.
        """
        assert client_id in self.plan.weights, f"client {client_id} is not of this cohort"
        assert client_id not in self._added, f"client {client_id} was added twice"
        tensors = flat(payload)
        assert tensors.keys() == self._like.keys(), "a client sends the groups and names that the server has"
        require_summable(tensors, client_id, self.plan.round_idx, peak)
        self._total.add(encode(tensors, self._like, self.plan.weights[client_id]))
        self._added.add(client_id)
        if self._keeps:
            self._kept.put(client_id, payload[MODEL])

    def close(self, returned: Sequence[int]) -> None:
        """Say which of the planned clients sent something, on all processes together."""
        assert self._added <= set(returned) <= set(self.plan.arriving)
        self.client_ids = tuple(sorted(returned))

    @property
    def weights(self) -> dict[int, float]:
        """p_i of every client that returned, summing to 1, in their order."""
        share = self._share
        return {client: self.plan.weights[client] / share for client in self.client_ids}

    @property
    def _share(self) -> float:
        """The planned weight of those who returned: exactly 1 if nobody is lost."""
        if len(self.client_ids) == len(self.plan.arriving):
            return 1.0
        return sum(self.plan.weights[client] for client in self.client_ids)

    def mean(self, group: str = MODEL) -> TensorDict:
        """Return sum_i p_i x_i of every tensor of a group, in the tensors' own types; one collective for all groups."""
        assert self.client_ids, "an empty round has no mean"
        if self._means is None:
            moved = decode(self._total.reduce(), self._like, self._share)
            means: Payload = {**{name: {} for name in self._server}, **grouped(moved)}
            self._means = dict(self._on_server(means) if self._on_server else means)
        return dict(self._means[group])

    @torch.no_grad()
    def mean_of(self, function: Callable[[TensorDict], TensorDict]) -> TensorDict:
        """Return sum_i p_i f(x_i) for a function of one client's `model` tensors; one collective.

        Only sums leave a client, so a rule may ask twice in a round. It says so with `asks_again`. The function is also
        called with the server's tensors, for names and shapes.
        """
        self._require_kept("mean_of", "asks_again")
        reference = function(dict(self._server[MODEL]))
        total = FixedPointSum(reference)
        for client_id in self._kept.clients():
            values = function({name: self._kept.get(client_id, name) for name in self._server[MODEL]})
            require_summable(values, client_id, self.plan.round_idx)
            total.add(encode(values, reference, self.plan.weights[client_id]))
        return decode(total.reduce(), reference, self._share)

    def stack(self, names: Sequence[str]) -> TensorDict:
        """Return each named tensor of every client, shape `(n, *shape)`, along the cohort's order; one collective."""
        self._require_kept("stack", "stacks")
        return stack_rows(self._kept, self.client_ids, {name: self._server[MODEL][name] for name in names})

    def _require_kept(self, asked: str, flag: str) -> None:
        if not self._keeps:
            raise UserError(f"a rule that calls {asked}() must say so in its class: {flag}: ClassVar[bool] = True")


def stack_rows(kept: Kept, client_ids: Sequence[int], like: Mapping[str, Tensor]) -> TensorDict:
    """Return each tensor of every client, shape (n, *shape), in the order of `client_ids`; one collective.

    The clients' rows are disjoint, so the processes' buffers are summed as integers: exact, signs of zero included.
    """
    assert len({tensor.dtype for tensor in like.values()}) == 1, "one type of tensors in one stack"
    first = next(iter(like.values()))
    integers = {4: torch.int32, 8: torch.int64}[first.element_size()]
    sizes = [tensor.numel() for tensor in like.values()]
    rows = torch.zeros(len(client_ids), sum(sizes), dtype=integers, device=first.device)
    mine = kept.clients()
    for row, client_id in zip(rows, client_ids, strict=True):
        if client_id in mine:
            torch.cat([kept.get(client_id, name).detach().reshape(-1) for name in like], out=row.view(first.dtype))
    communication.sum_in_place(rows)
    columns = torch.split(rows.view(first.dtype), sizes, dim=1)
    return {
        name: column.reshape(len(client_ids), *tensor.shape)
        for (name, tensor), column in zip(like.items(), columns, strict=True)
    }


def require_summable(tensors: Mapping[str, Tensor], client_id: int, round_idx: int, peak: float | None = None) -> None:
    """Raise a DivergenceError that names the first tensor that is not finite or too large; one wait for the device,
    none if the largest magnitude of all is given.
    """
    if peak is None:
        found = largest(tensors.values())
        peak = 0.0 if found is None else found.item()
    if peak < LARGEST:
        return
    for key, tensor in tensors.items():
        found = largest([tensor])
        if found is not None and not found.item() < LARGEST:  # also true for NaN
            raise DivergenceError(
                what=key.removeprefix(f"{MODEL}/"),
                value=found.item(),
                limit=LARGEST,
                round_number=round_idx + 1,
                client_id=client_id,
            )
