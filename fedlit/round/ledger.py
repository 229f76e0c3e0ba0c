"""What a private run has spent so far: a part of the server's state, so that no checkpoint forgets it.

It stands in `ServerState.optimizer` under `privacy/...`, where a checkpoint keeps it and the processes compare it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fedlit.round.canaries import Canaries
from fedlit.round.cohort import Cohort
from fedlit.round.private_sums import AdaptiveClip
from fedlit.round.server import ServerState

GROUP = "privacy"
"""No part of a method may have a group of this name."""

SCORES = "canary_scores"
"""Beside the ledger: an audit's scores so far (num,), float64."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What has been let out.

    releases: rounds whose sums were. rounds, steps: of every client of the population, the rounds whose sums it was in
    and the local steps that it took in them. clip_norm: of the next round.
    """

    releases: int
    rounds: Sequence[int]
    steps: Sequence[int]
    clip_norm: float

    @classmethod
    def opened(cls, num_clients: int, clip_norm: float) -> "Ledger":
        """Return the ledger before the first round."""
        return cls(releases=0, rounds=(0,) * num_clients, steps=(0,) * num_clients, clip_norm=clip_norm)

    @classmethod
    def of(cls, server: ServerState) -> "Ledger":
        """Return the ledger of a server that has one."""
        kept = {name: tensor.tolist() for name, tensor in server.group(GROUP).items()}
        return cls(
            releases=kept["releases"][0], rounds=kept["rounds"], steps=kept["steps"], clip_norm=kept["clip_norm"][0]
        )

    def in_server(self, server: ServerState) -> ServerState:
        """Return the server with this ledger."""
        counts = {"releases": [self.releases], "rounds": self.rounds, "steps": self.steps}
        tensors = {name: torch.tensor(each, dtype=torch.int64) for name, each in counts.items()}
        return server.with_group(GROUP, {**tensors, "clip_norm": torch.tensor([self.clip_norm], dtype=torch.float64)})

    def after(self, num_steps: Mapping[int, int], clip_norm: float | None = None) -> "Ledger":
        """Return the ledger after a round with these clients, and what each of them did."""
        rounds, steps = list(self.rounds), list(self.steps)
        for client_id, num in num_steps.items():
            rounds[client_id] += 1
            steps[client_id] += num
        return Ledger(
            releases=self.releases + 1,
            rounds=rounds,
            steps=steps,
            clip_norm=self.clip_norm if clip_norm is None else clip_norm,
        )


def book(
    cohort: Cohort,
    before: ServerState,
    after: ServerState,
    adaptive: AdaptiveClip | None,
    canaries: Canaries | None = None,
) -> ServerState:
    """Return the server after a round with what the round has spent in its ledger; unchanged where there is none."""
    if not before.group(GROUP):
        return after
    if canaries is not None:
        scores = canaries.scores(before.shared, cohort.mean(), cohort.plan.trains)
        after = after.with_group(GROUP, {SCORES: before.group(GROUP)[SCORES].cpu() + scores})
    ledger, share = Ledger.of(before), cohort.share_below
    clip_norm = ledger.clip_norm if adaptive is None or share is None else adaptive.next_norm(ledger.clip_norm, share)
    steps = {client_id: cohort.num_steps.get(client_id, 0) for client_id in cohort.client_ids}
    return ledger.after(steps, clip_norm).in_server(after)
