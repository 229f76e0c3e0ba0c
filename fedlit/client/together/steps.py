"""The local steps of several clients at once: one forward and backward pass for the batches of all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor

from fedlit.client.steps import ClientModule, StepTurns, switch_to_training
from fedlit.client.together.members import Member, Stepper
from fedlit.client.together.owners import Owners
from fedlit.client.together.random_states import RandomStates
from fedlit.client.together.weights import ClientWeights
from fedlit.tasks import Batch


@dataclass(frozen=True, kw_only=True)
class JointSteps:
    """Runs the steps of k clients on one process. Nothing in it waits for the device.

    on_step: called after every step of a client; what it raises ends the steps. turns: of the stacked parameters, where
    they take turns; all clients of a round are at the same step.
    """

    fabric: Fabric
    module: ClientModule
    weights: ClientWeights
    stepper: Stepper
    states: RandomStates
    on_step: Callable[[], None]
    turns: StepTurns | None = None

    def run(self, members: Sequence[Member], end: Callable[[Member], None]) -> list[Tensor]:
        """Take all steps of all clients, and return the losses of each client's steps, on the device.

        A client with fewer steps than others is out after its last. `end` is called with it then, when the stacked
        tensors hold what it trained.
        """
        switch_to_training(self.module)
        recorded: list[Tensor] = []
        for step in range(max(member.mine.num_steps for member in members)):
            active = [m for m in members if step < m.mine.num_steps and m.failure is None]
            if not active:
                break
            if self.turns is not None:
                self.turns.begin(step)
            recorded.append(self._backward(active, len(members)))
            self.stepper.step(active)
            for member in active:
                if member.failure is None and step + 1 == member.mine.num_steps:
                    end(member)
                self.on_step()
        losses = torch.stack(recorded)  # (steps, k)
        return [losses[: member.mine.num_steps, member.slot] for member in members]

    def _backward(self, active: Sequence[Member], num_clients: int) -> Tensor:
        """Add up the gradients of a step's batches and return each client's loss (k,), zero of one that is out.

        Every client's loss is the mean over its own targets, and the sum of the losses has the gradient of each.
        """
        given = {member.slot: self._next(member) for member in active}
        total = torch.zeros(num_clients, device=self.fabric.device)
        for turn in range(max(map(len, given.values()))):
            slots = [slot for slot, parts in given.items() if turn < len(parts)]
            losses = self._losses([given[slot][turn] for slot in slots], slots, given)
            total = total.to(losses.dtype).index_add(0, self._index(slots), losses)
        return total

    def _next(self, member: Member) -> list[Batch]:
        """Return the batches of a client's next step, which a task may draw, in the client's stream."""
        with self.states.of(member.slot):
            return next(member.batches)

    def _losses(self, batches: Sequence[Batch], slots: Sequence[int], given: dict[int, list[Batch]]) -> Tensor:
        joined = self.module.task.join(batches)
        owners = Owners(slots=tuple(slots), rows=joined.rows, widths=joined.widths, labels=joined.labels)
        # Backward too: gradient checkpointing computes the blocks once more there.
        with self.weights.of(owners):
            with self.fabric.autocast():
                losses = self.module.task.losses(self.module.model, joined.to(self.fabric.device))
            if any(len(given[slot]) > 1 for slot in slots):
                shares = [
                    targets / sum(part.num_targets for part in given[slot])
                    for slot, targets in zip(slots, joined.targets, strict=True)
                ]
                losses = losses * torch.tensor(shares, dtype=losses.dtype).to(losses.device, non_blocking=True)
            self.fabric.backward(losses.sum())
        return losses.detach()

    def _index(self, slots: Sequence[int]) -> Tensor:
        return torch.tensor(slots).to(self.fabric.device, non_blocking=True)
