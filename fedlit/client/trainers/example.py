"""Clients one after the other, each by DP-SGD: what it sends hides whether any single row of its took part.

Whose rows a step has is drawn by Poisson sampling, rows' gradients are clipped, and noise is added to their sum (Abadi
et al., arXiv 1607.00133). Everything that leaves the client's steps, its optimizer's state among it, is a function of
those noisy sums. Not private are its metrics: losses, and counts of rows, tokens and clipped gradients.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from fedlit.client.largest_gradient import LargestGradient
from fedlit.client.per_example.noise import ExampleNoise
from fedlit.client.per_example.steps import PrivateRound, PrivateSteps
from fedlit.client.row_order import poisson_order, sampling_rate
from fedlit.client.trainers.base import ClientRound
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.tasks import Joined


@dataclass(kw_only=True)
class ExampleTrainer(SerialTrainer):
    """Trains clients one after the other, by DP-SGD.

    clip_norm: C, the largest norm of a row's gradient over all that trains. noise_multiplier: z; the noise on a sum of
    gradients has the standard deviation z C; 0 for none.
    """

    clip_norm: float
    noise_multiplier: float

    def rate(self, num_examples: int) -> float:
        """Return the probability that a row of a client takes part in a step."""
        return sampling_rate(num_examples, self._num_step_rows)

    def order(self, num_rows: int, client_id: int, round_idx: int) -> Iterator[list[int]]:
        """Yield the rows of each step: as many steps as without privacy, of an epoch ceil(1 / q)."""
        return poisson_order(
            num_rows,
            self._num_step_rows,
            self.seed,
            client_id,
            round_idx=round_idx,
            num_steps=self.num_steps(num_rows),
        )

    def _run(self, mine: ClientRound, optimizer: Optimizer) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Take a client's steps; the share of rows whose gradient was clipped is known in a simulation alone."""
        job = mine.job
        noise = ExampleNoise(
            seed=self.seed,
            round_idx=job.plan.round_idx,
            client_id=job.client_id,
            deviation=self.noise_multiplier * self.clip_norm,
        )
        work = PrivateRound(
            batches=self._joined(mine),
            num_expected=self.rate(len(job.rows)) * len(job.rows),
            noise=noise if noise.deviation else None,
        )
        schedule, turns = self.schedule(mine), self.turns(mine, self.host.trained)
        watch = LargestGradient() if self.measures_gradients else None
        taken = self._private_steps.run(optimizer, work, self.on_step, mine.corrections, schedule, turns, watch)
        shares = {} if watch is None else dict(watch.shares())
        num_rows = sum(map(len, mine.order))
        return taken.losses, shares | ({"clipped_share": taken.num_clipped / num_rows} if num_rows else {})

    def _joined(self, mine: ClientRound) -> Iterator[list[Joined[Any]]]:
        """Yield the batches of each step, of at most `local.batch_size` rows.

        A row without a label has no loss, hence no gradient, and is left out.
        """
        task, size = self.module.task, self.local.batch_size
        for step in mine.order:
            single = [task.collate([mine.examples[row]]) for row in step]
            single = [batch for batch in single if batch.num_targets]
            yield [task.join(single[start : start + size]) for start in range(0, len(single), size)]

    @cached_property
    def _private_steps(self) -> PrivateSteps:
        return PrivateSteps(
            fabric=self.steps.fabric,
            module=self.module,
            local=self.local,
            trained=self.host.trained,
            clip_norm=self.clip_norm,
        )
