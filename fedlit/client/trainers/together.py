"""Several clients at once on one process: one forward and backward pass for all, through one frozen backbone and each
client's own weights. The results are those of one client after the other, but for the last bits.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict
from fedlit.client.largest_gradient import LargestGradient
from fedlit.client.steps import multiplied
from fedlit.client.together.groups import groups_of
from fedlit.client.together.members import Member, OneOptimizer, OwnOptimizers, Stepper, joined_state
from fedlit.client.together.random_states import RandomStates
from fedlit.client.together.steps import JointSteps
from fedlit.client.together.weights import slices
from fedlit.client.trainers.base import LocalTrainer, Outcome, go_on
from fedlit.round.jobs import ClientJob, ClientResult
from fedlit.round.payload import MODEL


@dataclass(kw_only=True)
class TogetherTrainer(LocalTrainer):
    """Trains the clients of a group at once.

    size: the most clients of a group. at_home: clients keep something, each on one process, so that groups are of
    neighbours by id; else of neighbours in the round's plan.
    """

    size: int
    at_home: bool

    def together(self, client_ids: Sequence[int]) -> list[tuple[int, ...]]:
        """Return groups of at most `size` clients."""
        return groups_of(client_ids, self.size, at_home=self.at_home)

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        """Yield the results group by group; a client whose loss is not finite is a failure, and the others are not."""
        group: list[ClientJob] = []
        sizes: dict[int, int] = {}
        for job in jobs:
            group.append(job)
            sizes = sizes or {client: len(each) for each in self.together(job.plan.training) for client in each}
            if len(group) == sizes[job.client_id]:
                yield from self._train(group)
                group = []
        assert not group, "a group comes to one process whole"

    def _train(self, jobs: Sequence[ClientJob]) -> Iterator[ClientResult]:
        started_s = time.perf_counter()
        rounds = [self.prepared(job) for job in jobs]
        held, scales = self.host.load_together(jobs)
        trains = jobs[0].plan.trains
        stacked: dict[str, nn.Parameter] = {
            name: nn.Parameter(tensor, requires_grad=name in trains) for name, tensor in held.items()
        }
        members = [
            Member(slot=slot, mine=mine, views=self._views(stacked, slot), batches=self.batches(mine))
            for slot, mine in enumerate(rounds)
        ]
        weights = self.host.client_weights(stacked, scales)
        states = RandomStates(self.steps.fabric.device)
        with ExitStack() as stack:
            stepper = self._stepper(members, stacked, states)
            stack.enter_context(weights.installed(states))
            steps = JointSteps(
                fabric=self.steps.fabric,
                module=self.module,
                weights=weights,
                stepper=stepper,
                states=states,
                on_step=self.on_step,
                turns=self.turns(rounds[0], stacked),
            )

            def end(member: Member) -> None:
                member.trained = slices(stacked, member.slot)
                member.shares = dict(stepper.shares(member))
                if self.local.optimizer_state == "keep":
                    member.optimizer = stepper.state_of(member)

            losses = steps.run(members, end)
        yield from self._ended(members, losses, started_s)

    def _ended(self, members: Sequence[Member], losses: Sequence[Tensor], started_s: float) -> Iterator[ClientResult]:
        """Yield the members' results, which are read from the device at once."""
        outcomes = [
            Outcome(
                mine=member.mine,
                losses=own,
                trained=self._taken(member.mine.job, trained),
                optimizer=member.optimizer,
                shares=member.shares,
            )
            for member, own in zip(members, losses, strict=True)
            if (trained := member.trained) is not None
        ]
        results = self.results(outcomes, lambda: (time.perf_counter() - started_s) / len(members))
        by_client = {result.client_id: result for result in results}
        for member in members:
            client_id = member.mine.job.client_id
            failed = ClientResult(
                client_id=client_id,
                payload=None,
                failure=member.failure,
                seconds=(time.perf_counter() - started_s) / len(members),
            )
            yield failed if member.failure is not None else by_client[client_id]

    def _views(self, stacked: Mapping[str, nn.Parameter], slot: int) -> dict[str, nn.Parameter]:
        """Return one client's part of the parameters that an optimizer steps in any round, in their order."""
        return {
            name: nn.Parameter(stacked[name].data[slot], requires_grad=stacked[name].requires_grad)
            for name in self.host.trained
        }

    def _stepper(self, members: Sequence[Member], stacked: Mapping[str, nn.Parameter], states: RandomStates) -> Stepper:
        """Return what steps the clients: one optimizer over all of them where that is the same, else one for each."""
        optimizer, norm = self.module.method.optimizer, self.local.max_grad_norm
        trained = {name: stacked[name] for name in self.host.trained}
        kept = [member.mine.job.state.optimizer for member in members]
        schedules = [self.schedule(member.mine) for member in members]
        if optimizer.element_wise and not self.parts and len(set(schedules)) == 1:
            try:
                state = joined_state(kept, [view.shape for view in members[0].views.values()])
            except ValueError:
                pass  # a client that was not invited before is at another step
            else:
                for member in members:
                    self._begin(member, states, None)
                one = go_on(optimizer.build(trained), state)
                watch = LargestGradient() if self.measures_gradients else None
                return OneOptimizer(one, trained, multiplied(one, self.local, schedules[0]), norm, watch)
        own = [go_on(optimizer.build(member.views), state) for member, state in zip(members, kept, strict=True)]
        for member, each in zip(members, own, strict=True):
            self._begin(member, states, each)
        multipliers = [multiplied(each, self.local, when) for each, when in zip(own, schedules, strict=True)]
        watches = [LargestGradient() for _ in members] if self.measures_gradients else []
        return OwnOptimizers(own, trained, multipliers, norm, states, watches)

    def _begin(self, member: Member, states: RandomStates, optimizer: torch.optim.Optimizer | None) -> None:
        """Open the client's stream, in which its parts begin."""
        plan, client_id = member.mine.job.plan, member.mine.job.client_id
        with states.begin(self.seed, "dropout", round_idx=plan.round_idx, client_id=client_id):
            if optimizer is not None:
                self.begin(member.mine, member.views, optimizer)

    def _taken(self, job: ClientJob, trained: Mapping[str, Tensor]) -> tuple[TensorDict, TensorDict]:
        """Return the tensors that travel and those that stay, of which a client may share some with the others."""
        shared, private = self.host.shared(), self.host.private()
        given = {**job.start.groups[MODEL], **job.state.private}
        rest = {name: live for name, live in {**shared, **private}.items() if name not in trained}
        whole = {**{name: given[name].to(live, copy=True) for name, live in rest.items()}, **trained}
        return {name: whole[name] for name in shared}, {name: whole[name] for name in private}
