"""Canaries among the clients: what an audit has them send, beside what the clients train."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fedlit.round.canaries import OVERSHOOT, Canaries
from fedlit.round.jobs import ClientJob, ClientResult, Trainer
from fedlit.round.payload import MODEL


@dataclass(kw_only=True)
class WithCanaries(Trainer):
    """Lets another trainer train the clients, and makes up what the canaries send.

    clip_norm: of the first round; a canary's change is longer than it.
    """

    inner: Trainer
    canaries: Canaries
    clip_norm: float
    _waiting: list[ClientJob] = field(default_factory=list)

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        """Yield the results of the clients, and those of the canaries once they were asked for."""
        self._waiting = []  # of a round that was stopped
        yield from self.inner.train(self._clients(jobs))
        yield from (self._sent(job) for job in self._waiting)
        self._waiting = []

    def _clients(self, jobs: Iterable[ClientJob]) -> Iterator[ClientJob]:
        for job in jobs:
            if job.client_id in self.canaries.clients:
                self._waiting.append(job)
            else:
                yield job

    def together(self, client_ids: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the other trainer's groups, and each canary alone."""
        clients = [client_id for client_id in client_ids if client_id < self.canaries.first]
        return [*self.inner.together(clients), *((each,) for each in client_ids if each >= self.canaries.first)]

    def num_steps(self, num_examples: int) -> int:
        """Return the steps of a client; a canary, which has no rows, takes none."""
        return self.inner.num_steps(num_examples) if num_examples else 0

    def _sent(self, job: ClientJob) -> ClientResult:
        start = job.start.groups[MODEL]
        moved = dict(start)
        for name, part in self.canaries.direction(job.client_id, start, job.plan.trains).items():
            change = part.mul(OVERSHOOT * self.clip_norm).to(start[name].device)
            moved[name] = (start[name].double() + change).to(start[name].dtype)
        metrics = {"num_steps": 0, "num_truncated": 0, "num_tokens": 0, "update_norm": OVERSHOOT * self.clip_norm}
        return ClientResult(client_id=job.client_id, payload={**job.start.groups, MODEL: moved}, metrics=metrics)
