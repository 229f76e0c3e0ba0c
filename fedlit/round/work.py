"""One process's share of a round: its clients' results, transformed, summed and observed as they come."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedlit.errors import DivergenceError, OutOfMemory
from fedlit.process import communication
from fedlit.process.interrupt import StopAsked, is_out_of_memory, out_of_memory
from fedlit.round.cohort import Cohort, require_summable
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Trainer
from fedlit.round.late import arrived, under_way
from fedlit.round.observers import Observer
from fedlit.round.payload import Payload, flat
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transforms


def clients_here(plan: RoundPlan, trainer: Trainer, homes: Collection[int] | None) -> list[int]:
    """Return the clients of a round that train on this process, those of a group one after the other.

    homes: the clients that live on this process; None where they keep nothing and groups are dealt round by round.
    """
    if homes is not None:
        return [client_id for client_id in plan.training if client_id in homes]
    return [client_id for group in communication.share(trainer.together(plan.training)) for client_id in group]


@dataclass(kw_only=True)
class LocalWork:
    """What one process did in a round: small values, which all processes gather.

    reports: metrics of every client that returned. notes: what each observer noted of them. lost: the clients that sent
    nothing, and why (None where nobody knows). problem: what ends the round for everybody.
    """

    reports: dict[int, Mapping[str, float]] = field(default_factory=dict)
    notes: dict[int, list[Any]] = field(default_factory=dict)
    lost: dict[int, DivergenceError | None] = field(default_factory=dict)
    clients_s: float = 0.0
    problem: DivergenceError | OutOfMemory | StopAsked | None = None


@dataclass(kw_only=True)
class RoundWork:
    """Trains this process's clients of a round.

    drops_failures: a client whose loss or update is not finite is left out; else it ends the run.
    states: what the clients that returned keep from now on.
    """

    trainer: Trainer
    transforms: Transforms
    observers: Sequence[Observer]
    drops_failures: bool
    states: dict[int, ClientState] = field(default_factory=dict)

    def run(
        self,
        plan: RoundPlan,
        server: ServerState,
        cohort: Cohort,
        jobs: Iterable[ClientJob],
        kept: Mapping[int, ClientState] | None = None,
    ) -> LocalWork:
        """Train the jobs' clients and add what they send to the cohort, with what comes from earlier rounds.

        A job is made when the trainer asks for it. kept: what this process's clients keep, if they keep anything.
        """
        work = LocalWork()
        waiting: dict[int, ClientJob] = {}

        def handed_out() -> Iterator[ClientJob]:
            for job in jobs:
                waiting[job.client_id] = job
                yield job

        for observer in self.observers:
            observer.begin(plan, server)
        for client_id, began in plan.began.items():
            if kept is not None and client_id in kept and (found := arrived(kept[client_id], began)) is not None:
                change, work.reports[client_id], self.states[client_id] = found
                cohort.add_change(client_id, change)
        try:
            for result in self.trainer.train(handed_out()):
                self._take(result, waiting.pop(result.client_id), server, cohort, work)
            work.lost |= dict.fromkeys(waiting)
        except (DivergenceError, StopAsked) as end:
            work.problem = end
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            work.problem = out_of_memory(error, f"round {plan.round_idx + 1}, process {communication.process_index()}")
        return work

    def _take(self, result: ClientResult, job: ClientJob, server: ServerState, cohort: Cohort, work: LocalWork) -> None:
        """Take in one result: a client that sends nothing, or what cannot be summed, is lost."""
        work.clients_s += result.seconds
        failure = result.failure
        if result.payload is not None:
            sent = self.transforms.on_client(result.payload, server, job.plan, job.client_id)
            peak = None if self.transforms.parts else result.peak
            try:
                if job.client_id in job.plan.late:
                    self._keep(result, job, sent, cohort, peak)
                    return
                cohort.add(job.client_id, sent, peak)
            except DivergenceError as error:
                failure = error
            else:
                work.reports[job.client_id] = result.metrics
                work.notes[job.client_id] = [observer.see(job, result, sent) for observer in self.observers]
                if result.state is not None:
                    self.states[job.client_id] = result.state
                return
        if failure is not None and not self.drops_failures:
            raise failure
        work.lost[job.client_id] = failure

    def _keep(self, result: ClientResult, job: ClientJob, sent: Payload, cohort: Cohort, peak: float | None) -> None:
        """Let a result that comes in a later round wait beside what its client keeps."""
        tensors, round_idx = flat(sent), job.plan.round_idx
        require_summable(tensors, job.client_id, round_idx, peak)
        self.states[job.client_id] = under_way(job.state, result, tensors, cohort.tensors, round_idx)
