"""The local steps of DP-SGD: clipped gradients of single rows, and noise, before whatever else a step does.

Abadi et al., arXiv 1607.00133, algorithm 1: a step's gradient is (sum of clipped gradients + noise) / L, L = q n the
expected number of rows. What comes after it, corrections, clipping, the optimizer, sees nothing else of the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.client.largest_gradient import LargestGradient
from fedlit.client.per_example.clipping import ClippedGradients
from fedlit.client.per_example.noise import ExampleNoise
from fedlit.client.per_example.recording import Rows
from fedlit.client.steps import ClientModule, StepRange, StepTurns, multiplied, switch_to_training
from fedlit.config import LocalConfig
from fedlit.round.jobs import Correction
from fedlit.tasks import Joined


@dataclass(frozen=True, kw_only=True)
class PrivateRound:
    """One client's round. batches: of each step, its rows joined as if each were a client of its own; none of a step
    without rows. num_expected: L. noise: None for none.
    """

    batches: Iterable[Sequence[Joined[Any]]]
    num_expected: float
    noise: ExampleNoise | None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What the steps left on the device. losses: (steps,), each the mean over its rows, 0 of a step without rows.
    num_clipped: rows whose gradient was clipped, in all steps.
    """

    losses: Tensor
    num_clipped: Tensor


@dataclass(frozen=True, kw_only=True)
class PrivateSteps:
    """Runs optimizer steps of DP-SGD on one process. Nothing in it waits for the device.

    trained: all that the method trains, by name; those that train in a round are marked. clip_norm: C.
    """

    fabric: Fabric
    module: ClientModule
    local: LocalConfig
    trained: Mapping[str, nn.Parameter]
    clip_norm: float
    _engines: dict[tuple[str, ...], ClippedGradients] = field(default_factory=dict)

    def run(
        self,
        optimizer: Optimizer,
        work: PrivateRound,
        on_step: Callable[[], None],
        corrections: Sequence[Correction] = (),
        schedule: StepRange | None = None,
        turns: StepTurns | None = None,
        watch: LargestGradient | None = None,
    ) -> Taken:
        """Take one optimizer step for each list of batches, also for an empty one.

        `schedule`, `turns`, `watch` and `on_step` are those of LocalSteps.run. Of parameters that take turns, those of
        the step alone are clipped and get noise.
        """
        switch_to_training(self.module)
        optimizer.zero_grad(set_to_none=True)  # what a client left whose optimizer ended its training
        trained = {name: parameter for name, parameter in self.trained.items() if parameter.requires_grad}
        scheduler = multiplied(optimizer, self.local, schedule)
        losses = []
        num_clipped = torch.zeros((), dtype=torch.int64, device=self.fabric.device)
        watched: tuple[str, ...] | None = None
        with ExitStack() as stack:
            for step, parts in enumerate(work.batches):
                mine = trained if turns is None else turns.begin(step)
                if tuple(mine) != watched:
                    stack.close()
                    engine, watched = stack.enter_context(self._watched(mine)), tuple(mine)
                sums: dict[str, Tensor] = {}
                loss = torch.zeros((), device=self.fabric.device)
                num_rows = sum(len(part.rows) for part in parts)
                for part in parts:
                    loss = loss + self._backward(engine, part).float() / num_rows
                    found = engine.end()
                    num_clipped += (found.norms > self.clip_norm).sum()
                    for name, each in found.sums.items():
                        sums[name] = sums[name] + each if name in sums else each
                self._set_gradients(mine, sums, step, work)
                for correction in corrections:
                    correction.apply()
                if watch is not None:
                    watch.see(mine.values())
                if self.local.max_grad_norm is not None:
                    nn.utils.clip_grad_norm_(mine.values(), self.local.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if scheduler is not None:
                    scheduler.step()
                losses.append(loss)
                on_step()
        return Taken(losses=torch.stack(losses), num_clipped=num_clipped)

    def _backward(self, engine: ClippedGradients, joined: Joined[Any]) -> Tensor:
        """Let the engine see the rows' gradients, and return the sum of their losses."""
        engine.begin(Rows(num_rows=len(joined.rows), width=max(joined.widths, default=0), labels=tuple(joined.labels)))
        # The strategy leaves modules unwrapped, so Fabric's precision is entered here rather than in a wrapper.
        with self.fabric.autocast():
            loss = self.module.task.losses(self.module.model, joined.to(self.fabric.device)).sum()
        if loss.requires_grad:  # else no parameter that trains has a part in it
            self.fabric.backward(loss)
        return loss.detach()

    def _set_gradients(
        self, trained: Mapping[str, nn.Parameter], sums: Mapping[str, Tensor], step: int, work: PrivateRound
    ) -> None:
        """Give each parameter its gradient, noise alone where no row has any."""
        noise = {} if work.noise is None else work.noise.of_step(step, trained)
        for name, parameter in trained.items():
            total = sums.get(name)
            if name in noise:
                total = noise[name] if total is None else total + noise[name]
            total = torch.zeros_like(parameter) if total is None else total / work.num_expected
            parameter.grad = total.to(parameter.dtype)

    @contextmanager
    def _watched(self, trained: Mapping[str, nn.Parameter]) -> Iterator[ClippedGradients]:
        names = tuple(trained)
        if names not in self._engines:  # a walk through all modules
            self._engines[names] = ClippedGradients(self.module.model, trained, self.clip_norm)
        with self._engines[names].installed():
            yield self._engines[names]
