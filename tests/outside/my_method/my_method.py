"""A method of one's own in one file: a rule, an adapter, an optimizer and a reader of data, each with options.

    cd my_method
    fedlit run plugins=[my_method] method.rule=median_b method.adapter=spread_lora method.optimizer=sign_sgd \
        data=jsonl data.source=notes "data.source_options={file: notes.txt}"
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from fedlit.plugins import (
    FRACTION,
    POSITIVE,
    AggregationRule,
    Calibration,
    Cohort,
    DataConfig,
    LocalOptimizer,
    Lora,
    Projections,
    Reader,
    ServerState,
    UserError,
    option,
    register,
)


@register("rule", "median_b")
@dataclass(frozen=True, kw_only=True)
class MedianB(AggregationRule):
    """A is averaged; B goes the share `pull` of the way from its mean to the clients' median."""

    pull: float = option(0.5, "share of the way from the mean of B to its median", range=FRACTION)

    needs: ClassVar[frozenset[str]] = frozenset("AB")
    stacks: ClassVar[bool] = True

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        shared = cohort.mean()
        for name, clients in cohort.stack([layer.b for layer in server.layers]).items():
            shared[name] = torch.lerp(shared[name], clients.median(dim=0).values, self.pull)
        return replace(server, shared=shared)


@register("adapter", "spread_lora")
@dataclass(frozen=True, kw_only=True)
class SpreadLora(Lora):
    """LoRA whose A begins `spread` times as large."""

    spread: float = option(2.0, "factor of the first values of A", range=POSITIVE)

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        facts = super().attach(model, projections, calibration)
        parameters = dict(model.named_parameters())
        for layer in self.layers(model):
            parameters[layer.a].data.mul_(self.spread)
        return facts


class SignSGDSteps(torch.optim.Optimizer):
    """Steps of one size, in the direction of each gradient's sign."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    still = parameter.grad.abs() <= group["dead_zone"]
                    parameter.add_(parameter.grad.sign().masked_fill(still, 0), alpha=-group["lr"])
        return loss


@register("optimizer", "sign_sgd")
@dataclass(frozen=True, kw_only=True)
class SignSGD(LocalOptimizer):
    """signSGD (Bernstein et al., arXiv 1802.04434) that leaves small gradients out."""

    lr: float
    dead_zone: float = option(0.0, "size of a gradient up to which its weight stays")

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        return SignSGDSteps(list(parameters.values()), {"lr": self.lr, "dead_zone": self.dead_zone})

    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        return 0


@register("reader", "notes")
@dataclass(frozen=True, kw_only=True)
class Notes(Reader):
    """Reads a text file whose lines are `term: meaning`."""

    file: str = option(help="the text file")
    sign: str = option(":", "what stands between a term and its meaning")

    def rows(self, data: DataConfig) -> Iterator[Mapping[str, Any]]:
        path = Path(self.file)
        if not path.is_file():
            raise UserError(f"data.source_options: file={path} is not there; give a text file of notes")
        for line in path.read_text(encoding="utf-8").splitlines():
            term, _, meaning = line.partition(self.sign)
            yield {"prompt": term.strip(), "response": meaning.strip(), "label": term[0]}
