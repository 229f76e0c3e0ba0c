"""Five parts that know fedlit from outside: a configuration names this module, `plugins=[outside_parts]`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.algebra.tensors import TensorDict, distance
from fedlit.client.optimizers import LocalOptimizer
from fedlit.registry import register
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import Correction, LocalPart, LocalRound
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import Availability, RoundPlan
from fedlit.round.rules import AggregationRule
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transform
from fedlit.seeding import numpy_generator

# --- a rule over single clients


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(AggregationRule):
    """A is averaged; of B the mean without the `trim` smallest and largest values of every element."""

    trim: int = 1

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    stacks: ClassVar[bool] = True

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        shared, names = cohort.mean(), [layer.b for layer in server.layers]
        n = len(cohort.client_ids)
        if n > 2 * self.trim:
            for name, clients in cohort.stack(names).items():
                shared[name] = clients.sort(dim=0).values[self.trim : n - self.trim].mean(0)
        return replace(server, shared=shared)


# --- a transform between client and rule


@dataclass(frozen=True, kw_only=True)
class ClipNorm(Transform):
    """Shortens an update to the norm `clip_norm`."""

    clip_norm: float = 1.0

    def on_client(self, payload: Payload, server: ServerState, plan: RoundPlan, client_id: int) -> Payload:
        factor = min(1.0, self.clip_norm / max(distance(payload[MODEL], server.shared), 1e-30))
        return {**payload, MODEL: {name: x.lerp(payload[MODEL][name], factor) for name, x in server.shared.items()}}


# --- a rule over client moments


@dataclass(frozen=True)
class SecondMoments(LocalPart):
    """AdamW's second moments travel as a group: a client starts from the server's and sends its own."""

    group: ClassVar[str] = "moments"

    def first(self, trained: Mapping[str, Tensor]) -> TensorDict:
        return {name: torch.zeros_like(tensor.data, dtype=torch.float32) for name, tensor in trained.items()}

    def begin(self, work: LocalRound) -> Correction | None:
        for name, parameter in work.parameters.items() if work.plan.round_idx else ():
            work.optimizer.state[parameter] = {
                "step": torch.tensor(float(work.plan.round_idx * work.num_steps)),  # of which v has seen that many
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": work.start.groups[self.group][name].clone(),
            }
        return None

    def end(self, work: LocalRound, trained: Mapping[str, Tensor]) -> tuple[TensorDict, TensorDict]:
        return {name: work.optimizer.state[p]["exp_avg_sq"].clone() for name, p in work.parameters.items()}, {}


@dataclass(frozen=True)
class MomentAverage(FedAvg):
    """The mean of the weights, and the mean of the second moments: FedGaLore's server step in its simplest form."""

    def local_parts(self) -> tuple[LocalPart, ...]:
        return (SecondMoments(),)


# --- an optimizer with two rates


@dataclass(frozen=True, kw_only=True)
class LoraPlus(LocalOptimizer):
    """LoRA+ (Hayou et al., arXiv 2402.12354): AdamW whose rate for B is lr_ratio times that for A."""

    lr: float
    lr_ratio: float = 16.0

    def build(self, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
        b = [parameter for name, parameter in parameters.items() if ".lora_B." in name]
        others = [parameter for name, parameter in parameters.items() if ".lora_B." not in name]
        return torch.optim.AdamW([{"params": others}, {"params": b, "lr": self.lr * self.lr_ratio}], lr=self.lr)

    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        return 2 * sum(shape.numel() for shape in shapes)


# --- a plan with random dropout


@dataclass(frozen=True, kw_only=True)
class RandomDropout(Availability):
    """Each invited client is lost with probability `rate`."""

    rate: float = 0.2

    def arriving(self, invited: Sequence[int], seed: int, round_idx: int) -> tuple[int, ...]:
        draws = {c: numpy_generator(seed, "dropout of clients", round_idx=round_idx, client_id=c) for c in invited}
        return tuple(client for client, draw in draws.items() if draw.random() >= self.rate)


register("rule", "trimmed_mean", TrimmedMean)
register("rule", "moment_average", MomentAverage)
register("transform", "clip_norm", ClipNorm)
register("optimizer", "lora_plus", LoraPlus)
register("availability", "random_dropout", RandomDropout)
