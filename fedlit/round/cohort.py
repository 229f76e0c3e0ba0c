"""The clients of one round as one distributed value, which a rule asks for a mean or for the stack.

The mean is exact in order: every client's contribution p_i * (x_i - x), x being the server's tensor, goes through the
fixed-point sum, and the server's tensor is moved by it. All groups of the payload are in one buffer, summed by one
collective.

Shapes: n clients with weights p_i >= 0 that sum to 1. Of the clients in the plan some may be lost; the weights of the
others are then divided by their sum. In a private round every weight is 1 / m instead, m being fixed beforehand, and
nothing makes up for those who are lost.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fedlit.algebra.pieces import largest
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import DivergenceError, UserError
from fedlit.process import communication
from fedlit.round.fixed_point import LARGEST, Encoded, FixedPointSum, decode, encode
from fedlit.round.kept import InMemory, Kept
from fedlit.round.payload import MODEL, Payload, flat, grouped
from fedlit.round.plan import RoundPlan
from fedlit.round.private_sums import Release
from fedlit.secure import SecureTraffic
from fedlit.secure.channel import MaskedChannel


class Cohort:
    """What the clients of one round sent, wherever they were trained.

    Args:
        plan: who should send, with what weight.
        server: the server's tensors of every group: names, shapes, types and device of every payload.
        keeps: keep single clients' tensors until the round ends, for `stack` and `mean_of`.
        on_server: what becomes of the means before the rule sees them (Transforms.on_server).
        release: bounds every client's part in the sums and adds noise to them. channel: masks what clients send.
        num_sums: how many the rule will ask for (AggregationRule.num_sums), where one of these is given.
    """

    def __init__(
        self,
        plan: RoundPlan,
        server: Payload,
        *,
        keeps: bool = False,
        on_server: Callable[[Payload], Payload] | None = None,
        release: Release | None = None,
        channel: MaskedChannel | None = None,
        num_sums: int = 1,
    ) -> None:
        summed = plan.expected is not None or not plan.weights or abs(sum(plan.weights.values()) - 1.0) < 1e-9
        assert summed, "the planned weights sum to 1"
        assert release is None or plan.expected == release.expected, "a private mean divides by a number that is fixed"
        self.plan = plan
        self.client_ids = plan.arriving
        self._server = {group: dict(tensors) for group, tensors in server.items()}
        # By name: a resumed server may have another order, and noise and norms go along the tensors.
        self._like = dict(sorted(flat(server).items()))
        self._release, self._channel = release, channel
        trains = {f"{MODEL}/{name}" for name in plan.trains}
        self._still = {name for name in self._like if name.startswith(f"{MODEL}/") and name not in trains}
        self._most_sums = num_sums
        self._num_sums = self._num_asked_again = 0
        self._total = FixedPointSum(self._like, release.num_beside if release else 0)
        self._num_integers = self._total.num  # sent before anybody knows whether they can be read
        self._keeps = keeps
        self._kept: Kept = InMemory()
        self._added: set[int] = set()
        self._on_server = on_server
        self._means: dict[str, TensorDict] | None = None
        self.num_steps: Mapping[int, int] = {}
        self.void: str | None = None
        self.share_below: float | None = None

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
        self._total.add(self._sent(client_id, tensors, self._like, sum_index=0))
        self._added.add(client_id)
        if self._keeps:
            self._kept.put(client_id, payload[MODEL])

    def add_change(self, client_id: int, change: Mapping[str, Tensor]) -> None:
        """Take in a client that began in an earlier round: what it changed then, flat, in float64."""
        assert client_id in self.plan.began and client_id not in self._added, f"client {client_id} is not awaited"
        assert change.keys() == self._like.keys(), "a client sends the groups and names that the server has"
        assert not (self._keeps or self._release or self._channel), "a sum of changes alone takes late results"
        values = {name: change[name].to(tensor.device) for name, tensor in self._like.items()}
        start = {name: torch.zeros_like(value) for name, value in values.items()}
        self._total.add(encode(values, start, self.plan.weights[client_id]))
        self._added.add(client_id)

    @property
    def tensors(self) -> TensorDict:
        """The server's tensors of every group, flat, which clients' are held against."""
        return self._like

    def _sent(
        self, client_id: int, values: Mapping[str, Tensor], like: Mapping[str, Tensor], sum_index: int
    ) -> Encoded:
        """Return a client's integers as they leave it: of bounded norm, masked."""
        weight = self.plan.weights[client_id]
        if self._release is None:
            encoded: Encoded = encode(values, like, weight)
        else:
            # What does not train in this round says nothing of anybody, and gets no noise: it must not move at all.
            values = {name: like[name] if name in self._still and not sum_index else values[name] for name in like}
            encoded = self._release.encoded(values, like, weight, sum_index)
        return encoded if self._channel is None else self._channel.sent(client_id, encoded, sum_index)

    def close(self, returned: Sequence[int], num_steps: Mapping[int, int] | None = None) -> None:
        """Say which of the planned clients sent something, on all processes together, after how many local steps."""
        assert self._added <= set(returned) <= set(self.plan.arriving)
        self.client_ids = tuple(sorted(returned))
        self.num_steps = dict(num_steps or {})
        if self._channel is not None:
            self.void = self._channel.close(self.client_ids, num_sums=self._most_sums)

    @property
    def is_idle(self) -> bool:
        """Whether the server stands still: nobody sent anything, or the masks cannot be taken off. With noise a round
        without clients is like any other: standing still would tell that nobody came.
        """
        return self.void is not None or not (self.client_ids or self._release)

    def masked_traffic(self) -> SecureTraffic | None:
        """Return what all clients have sent and received for sums of masked integers; None without masks."""
        if self._channel is None:
            return None
        return sum(self._channel.traffic(self._num_integers).values(), start=SecureTraffic())

    @property
    def weights(self) -> dict[int, float]:
        """p_i of every client that returned, in their order; they sum to 1 unless the plan fixes what divides."""
        share = self._share
        return {client: self.plan.weights[client] / share for client in self.client_ids}

    @property
    def shares(self) -> dict[int, float]:
        """p_i divided by their sum, which is 1 but in a round that divides by a fixed number."""
        weights = self.weights
        total = sum(weights.values()) if self.plan.expected is not None else 1.0
        return {client: weight / total for client, weight in weights.items()}

    @property
    def _share(self) -> float:
        """The planned weight of those who returned: exactly 1 if nobody is lost, or if nothing makes up for it."""
        if self.plan.expected is not None or len(self.client_ids) == len(self.plan.arriving):
            return 1.0
        return sum(self.plan.weights[client] for client in self.client_ids)

    def mean(self, group: str = MODEL) -> TensorDict:
        """Return sum_i p_i x_i of every tensor of a group, in the tensors' own types; one collective for all groups."""
        assert not self.is_idle, "an empty round has no mean"
        if self._means is None:
            total = self._reduced(self._total)
            moved = decode(total, self._like, self._share)
            self.share_below = self._release.share_below(total) if self._release else None
            found = grouped(moved)
            means: Payload = {
                group: {name: found[group][name] for name in tensors} for group, tensors in self._server.items()
            }
            self._means = dict(self._on_server(means) if self._on_server else means)
        return dict(self._means[group])

    @torch.no_grad()
    def mean_of(self, function: Callable[[TensorDict], TensorDict]) -> TensorDict:
        """Return sum_i p_i f(x_i) for a function of one client's `model` tensors; one collective.

        Only sums leave a client, so a rule may ask twice in a round. It says so with `asks_again`. The function is also
        called with the server's tensors, for names and shapes.
        """
        self._require_kept("mean_of", "asks_again")
        reference = dict(sorted(function(dict(self._server[MODEL])).items()))
        self._num_asked_again += 1
        total, index = FixedPointSum(reference), self._num_asked_again
        self._num_integers += total.num
        for client_id in self._kept.clients():
            values = function({name: self._kept.get(client_id, name) for name in self._server[MODEL]})
            require_summable(values, client_id, self.plan.round_idx)
            total.add(self._sent(client_id, values, reference, index))
        return decode(self._reduced(total, index), reference, self._share)

    def _reduced(self, total: FixedPointSum, sum_index: int = 0) -> Tensor:
        """Return a sum over all processes, with noise and without masks."""
        self._num_sums += 1
        release, channel = self._release, self._channel
        if (release or channel) and self._num_sums > self._most_sums:
            raise UserError(
                f"the rule asks for {self._num_sums} sums of what clients sent, and says that it asks for "
                f"{self._most_sums}, which its privacy is made for; let num_sums() return {self._num_sums}"
            )
        here = communication.process_index(), communication.num_processes()

        def finish(buffer: Tensor) -> None:
            if release is not None:
                release.add_noise(self._noised(buffer) if not sum_index else [buffer], sum_index, *here)
                if not sum_index:
                    release.add_noise_to_count(buffer, here[0])
            if channel is not None:
                channel.before_reduce(buffer, sum_index, *here)

        return total.reduce(finish)

    def _noised(self, buffer: Tensor) -> list[Tensor]:
        """Return the parts of the first sum that can tell of somebody: all tensors that trained."""
        sizes = [tensor.numel() for tensor in self._like.values()]
        parts = torch.split(buffer[: sum(sizes)], sizes)
        return [part for name, part in zip(self._like, parts, strict=True) if name not in self._still]

    def stack(self, names: Sequence[str]) -> TensorDict:
        """Return each named tensor of every client, shape `(n, *shape)`, along the cohort's order; one collective."""
        self._require_kept("stack", "stacks")
        if self._release is not None or self._channel is not None:
            raise UserError(
                "a rule that calls stack() looks at single clients, whom privacy hides; let it ask for sums"
            )
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
