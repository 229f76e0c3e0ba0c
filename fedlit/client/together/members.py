"""A client among others in one forward pass, and how all of them step.

Shapes: k clients, stacked parameters (k, *shape); a client's own are views of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fedlit.algebra.tensors import TensorDict
from fedlit.client.largest_gradient import LargestGradient, stacked_norms
from fedlit.client.together.random_states import RandomStates
from fedlit.client.trainers.base import ClientRound
from fedlit.errors import DivergenceError
from fedlit.tasks import Batch


@dataclass(kw_only=True)
class Member:
    """One of the clients of a group.

    views: its trained parameters, live. batches: of each of its steps. trained, optimizer: what it had after its last
    step; shares: further numbers for its record. failure: why it has none.
    """

    slot: int
    mine: ClientRound
    views: Mapping[str, nn.Parameter]
    batches: Iterator[list[Batch]]
    trained: TensorDict | None = None
    shares: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    failure: DivergenceError | None = None


class Stepper(ABC):
    """Steps the stacked parameters after a backward pass and leaves them without gradients."""

    @abstractmethod
    def step(self, members: Sequence[Member]) -> None:
        """Step these clients; the others' tensors may change as well, since they were taken before."""

    @abstractmethod
    def state_of(self, member: Member) -> dict[str, Any]:
        """Return the state_dict that a client's own optimizer would have."""

    @abstractmethod
    def shares(self, member: Member) -> Mapping[str, Tensor]:
        """Return what was seen of a client's gradients until now, by its name in the record, on the device."""


class OneOptimizer(Stepper):
    """One optimizer over the stacked parameters, for an optimizer of single elements, without corrections.

    Args:
        max_grad_norm: each client's gradients are clipped to it; None for no clipping.
        watch: looks at the clients' gradients before that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        stacked: Mapping[str, nn.Parameter],
        scheduler: LRScheduler | None,
        max_grad_norm: float | None,
        watch: LargestGradient | None = None,
    ) -> None:
        self._watch = watch
        self._optimizer = optimizer
        self._stacked = stacked
        self._scheduler = scheduler
        self._max_grad_norm = max_grad_norm

    def step(self, members: Sequence[Member]) -> None:
        """Clip each client's gradients, and step all clients at once."""
        if self._watch is not None:
            self._watch.see_stacked(self._stacked.values())
        if self._max_grad_norm is not None:
            _clip([each.grad for each in self._stacked.values() if each.grad is not None], self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._scheduler is not None:
            self._scheduler.step()

    def shares(self, member: Member) -> Mapping[str, Tensor]:
        """Return the client's largest gradient."""
        return {} if self._watch is None else self._watch.shares(member.slot)

    def state_of(self, member: Member) -> dict[str, Any]:
        """Return the client's slice of the state."""
        state = self._optimizer.state_dict()
        shapes = [view.shape for view in member.views.values()]
        return {**state, "state": {i: _slice(each, member.slot, shapes[i]) for i, each in state["state"].items()}}


class OwnOptimizers(Stepper):
    """An optimizer for each client, over views of the stacked parameters: for any optimizer, corrections, schedule.

    Args:
        optimizers, schedulers: by slot.
        states: of the clients' streams, in which their optimizers and corrections draw.
        watches: look at each client's gradients, by slot; none for nothing.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        stacked: Mapping[str, nn.Parameter],
        schedulers: Sequence[LRScheduler | None],
        max_grad_norm: float | None,
        states: RandomStates,
        watches: Sequence[LargestGradient] = (),
    ) -> None:
        self._watches = watches
        self._states = states
        self._optimizers = optimizers
        self._stacked = stacked
        self._schedulers = schedulers
        self._max_grad_norm = max_grad_norm

    def step(self, members: Sequence[Member]) -> None:
        """Correct, clip and step one client after the other; an optimizer that diverges ends its client alone."""
        gradients = {name: each.grad for name, each in self._stacked.items() if each.grad is not None}
        for member in members:
            for name, gradient in gradients.items():
                member.views[name].grad = gradient[member.slot]
            try:
                with self._states.of(member.slot):
                    self._step(member)
            except DivergenceError as error:  # of an optimizer, which knows neither round nor client
                job = member.mine.job
                member.failure = error.at(round_number=job.plan.round_idx + 1, client_id=job.client_id)
        for each in self._stacked.values():
            each.grad = None

    def _step(self, member: Member) -> None:
        slot = member.slot
        for correction in member.mine.corrections:
            correction.apply()
        if self._watches:
            self._watches[slot].see(member.views.values())
        if self._max_grad_norm is not None:
            nn.utils.clip_grad_norm_(member.views.values(), self._max_grad_norm)
        self._optimizers[slot].step()
        self._optimizers[slot].zero_grad(set_to_none=True)
        for name, view in member.views.items():
            own = self._stacked[name].data[slot]
            if view.data_ptr() != own.data_ptr():  # some optimizers give a parameter new memory in place of new values
                own.copy_(view.data)
                view.data = own
        scheduler = self._schedulers[slot]
        if scheduler is not None:
            scheduler.step()

    def shares(self, member: Member) -> Mapping[str, Tensor]:
        """Return the client's largest gradient."""
        return self._watches[member.slot].shares() if self._watches else {}

    def state_of(self, member: Member) -> dict[str, Any]:
        """Return the state of the client's optimizer."""
        return self._optimizers[member.slot].state_dict()


def joined_state(states: Sequence[Mapping[str, Any] | None], shapes: Sequence[torch.Size]) -> dict[str, Any] | None:
    """Return the states of k clients' optimizers as the state of one over stacked parameters.

    Raises:
        ValueError: they are not at the same step, or of another form.
    """
    given = [state for state in states if state is not None]
    if not given:
        return None
    if len(given) < len(states) or len({tuple(state["state"]) for state in given}) > 1:
        raise ValueError("some begin and others go on")
    joined = {}
    for index in given[0]["state"]:
        each = [state["state"][index] for state in given]
        joined[index] = {key: _joined([values[key] for values in each], shapes[index]) for key in each[0]}
    return {**given[0], "state": joined}


def _joined(values: Sequence[Any], shape: torch.Size) -> Any:
    first = values[0]
    if isinstance(first, Tensor) and first.shape == shape and first.ndim:
        return torch.stack(list(values))
    same = all(torch.equal(v, first) if isinstance(first, Tensor) else v == first for v in values)
    if not same or (isinstance(first, Tensor) and first.ndim):
        raise ValueError("they are at different steps")
    return first


def _slice(state: Mapping[str, Any], slot: int, shape: torch.Size) -> dict[str, Any]:
    own = {
        key: value[slot] if isinstance(value, Tensor) and value.ndim and value.shape[1:] == shape else value
        for key, value in state.items()
    }
    # Copies, of the number of steps too: the others go on.
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in own.items()}


@torch.no_grad()
def _clip(gradients: Sequence[Tensor], max_norm: float) -> None:
    """Scale gradients (k, *shape) in place so that each client's norm over all of them is at most `max_norm`; as
    `clip_grad_norm_` does for one.
    """
    factors = (max_norm / (stacked_norms(gradients) + 1e-6)).clamp(max=1.0)  # (k,)
    torch._foreach_mul_(
        list(gradients), [factors.to(each.dtype).view(-1, *[1] * (each.ndim - 1)) for each in gradients]
    )
