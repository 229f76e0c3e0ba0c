"""Clients one after the other on one process: each is put into its one model, trained, and taken out again."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from fedlit.client.largest_gradient import LargestGradient
from fedlit.client.trainers.base import ClientRound, LocalTrainer, Outcome, go_on
from fedlit.errors import DivergenceError
from fedlit.round.jobs import ClientJob, ClientResult
from fedlit.seeding import torch_stream


@dataclass(kw_only=True)
class SerialTrainer(LocalTrainer):
    """Trains clients one after the other."""

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        """Yield the result of each job, in their order; one whose loss is not finite is a failure."""
        for job in jobs:
            started_s = time.perf_counter()
            try:
                yield self._train(job, started_s)
            except DivergenceError as error:
                yield ClientResult(
                    client_id=job.client_id, payload=None, failure=error, seconds=time.perf_counter() - started_s
                )

    def _train(self, job: ClientJob, started_s: float) -> ClientResult:
        """Train one client; what it received and its own state stay unchanged."""
        client_id, round_idx = job.client_id, job.plan.round_idx
        self.host.load_client(job)
        optimizer = go_on(self.module.configure_optimizers(), job.state.optimizer)
        mine = self.prepared(job)
        with torch_stream(self.seed, "dropout", round_idx=round_idx, client_id=client_id):
            self.begin(mine, self.host.trained, optimizer)
            try:
                losses, shares = self._run(mine, optimizer)
            except DivergenceError as error:  # of an optimizer, which knows neither round nor client
                raise error.at(round_number=round_idx + 1, client_id=client_id) from error
        kept = optimizer.state_dict() if self.local.optimizer_state == "keep" else None
        outcome = Outcome(mine=mine, losses=losses, trained=self.host.take(), optimizer=kept, shares=shares)
        return self.results([outcome], lambda: time.perf_counter() - started_s)[0]

    def _run(self, mine: ClientRound, optimizer: Optimizer) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Take a client's steps; return their losses (steps,) and further numbers for the record, on the device."""
        schedule, turns = self.schedule(mine), self.turns(mine, self.host.trained)
        watch = LargestGradient() if self.measures_gradients else None
        losses = self.steps.run(optimizer, self.batches(mine), self.on_step, mine.corrections, schedule, turns, watch)
        return losses, {} if watch is None else watch.shares()
