"""What `analysis` costs of a round on TinyLlama's shapes: `python experiments/benchmarks/analysis.py`.

On one side the observers of the default analyses, over random factors of three clients in all 22 blocks; on the other
the local steps of such a round, of which one block's forward and backward pass is timed, with LoRA on it, and counted
22 times. Embeddings, head, loss and optimizer are left out, which makes the share larger than it is.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Stopwatch, median, pin
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.client.largest_gradient import LargestGradient
from fedlit.config import MethodConfig, RunConfig
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Start
from fedlit.round.observers import RoundView
from fedlit.round.observers.deviation import Deviation
from fedlit.round.observers.factors import FactorObserver, LayerMeasure
from fedlit.round.observers.norms import NormObserver
from fedlit.round.observers.ranks import Ranks
from fedlit.round.observers.subspaces import Subspaces
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transforms

HIDDEN, MIDDLE, KEYS, BLOCKS, CLIENTS = 2048, 5632, 256, 22, 3
ATTENTION = ((HIDDEN, HIDDEN), (KEYS, HIDDEN), (KEYS, HIDDEN), (HIDDEN, HIDDEN))
"""(out, in) of q, k, v and o; behind them gate, up and down."""
ALL = (*ATTENTION, (MIDDLE, HIDDEN), (MIDDLE, HIDDEN), (HIDDEN, MIDDLE))
STEPS, ROWS, TOKENS = 10, 8, 256
"""Local steps of a client, rows of a batch, tokens of a row: fedlit's defaults."""
TARGET = 0.02
MEASURES: dict[str, tuple[LayerMeasure, ...]] = {
    "deviation": (Deviation(),),
    "deviation and rank": (Deviation(), Ranks()),
    "deviation, rank and subspaces": (Deviation(), Ranks(), Subspaces()),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """LoRA of this rank on projections of these shapes in so many blocks."""

    name: str
    target: str
    shapes: tuple[tuple[int, int], ...]
    rank: int
    num_blocks: int

    def layers(self) -> tuple[LoraLayer, ...]:
        """Return the names of all layers' factors."""
        return tuple(
            LoraLayer(name=f"{i}.{j}", a=f"{i}.{j}.a", b=f"{i}.{j}.b", weight=f"{i}.{j}", rank=self.rank, alpha=16.0)
            for i in range(self.num_blocks)
            for j in range(len(self.shapes))
        )

    def factors(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return random factors of all layers."""
        found = {}
        for i in range(self.num_blocks):
            for j, (num_out, num_in) in enumerate(self.shapes):
                found[f"{i}.{j}.a"] = torch.randn(self.rank, num_in, generator=generator) / num_in**0.5
                found[f"{i}.{j}.b"] = torch.randn(num_out, self.rank, generator=generator) * 1e-3
        return found


def observing(case: Case, measures: tuple[LayerMeasure, ...]) -> Callable[[], Elapsed]:
    """Return a function that does all that observers do in a round of three clients, and returns its time."""
    generator = torch.Generator().manual_seed(0)
    layers, tensors = case.layers(), case.factors(generator)
    before = ServerState(shared=tensors, layers=layers)
    sent = [
        {name: t + 1e-3 * torch.randn(t.shape, generator=generator) for name, t in tensors.items()}
        for _ in range(CLIENTS)
    ]
    weights = {0: 0.5, 1: 0.3, 2: 0.2}
    mean = {name: 0.5 * sent[0][name] + 0.3 * sent[1][name] + 0.2 * sent[2][name] for name in tensors}
    after = replace(before, shared=mean)
    clients = tuple(weights)
    plan = RoundPlan(round_idx=0, invited=clients, arriving=clients, weights=weights, trains=frozenset(tensors))
    cohort = Cohort(plan, {MODEL: before.shared})
    factors = FactorObserver(
        measures=measures, layers=layers, factors=tensors, fixed={}, rule=FedAvg(), transforms=Transforms()
    )

    def once() -> Elapsed:
        watch = Stopwatch()
        for observer in (factors, NormObserver()):
            observer.begin(plan, before)
            notes = {}
            for client_id, tensors_of in enumerate(sent):
                start = Start(groups={MODEL: before.shared})
                job = ClientJob(client_id=client_id, rows=(), start=start, state=ClientState(), plan=plan)
                result = ClientResult(client_id=client_id, payload={MODEL: tensors_of}, metrics={"num_steps": STEPS})
                notes[client_id] = observer.see(job, result, {MODEL: tensors_of})
            record = observer.record(RoundView(plan=plan, before=before, after=after, cohort=cohort, notes=notes))
            assert record
        return watch.elapsed()

    return once


def watching(case: Case) -> Callable[[], Elapsed]:
    """Return a function that measures the gradients of one local step, and returns its time."""
    parameters = list(case.factors(torch.Generator().manual_seed(0)).values())
    for parameter in parameters:
        parameter.requires_grad_(True).grad = torch.ones_like(parameter)
    largest = LargestGradient()

    def once() -> Elapsed:
        watch = Stopwatch()
        largest.see(parameters)
        return watch.elapsed()

    return once


def stepping(case: Case, num_tokens: int) -> Callable[[], Elapsed]:
    """Return a function that passes a row through one block, forward and backward, and returns its time."""
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=MIDDLE,
        num_attention_heads=32,
        num_key_value_heads=4,
        num_hidden_layers=1,
        vocab_size=8,
    )
    model: Any = LlamaModel(config)
    options = {"lora_rank": case.rank, "lora_alpha": 16.0, "target_modules": case.target}
    method = build_method(RunConfig(method=MethodConfig(name="fedit", options=options)))
    method.adapter.attach(model, PROJECTIONS["llama"])
    inputs = torch.randn(1, num_tokens, HIDDEN, requires_grad=True)

    def once() -> Elapsed:
        watch = Stopwatch()
        model(inputs_embeds=inputs).last_hidden_state.sum().backward()
        return watch.elapsed()

    return once


def seconds(block: Callable[[], Elapsed], repeats: int) -> float:
    """Return the median of the CPU seconds, after once without a clock."""
    block()
    return median([block().cpu_s for _ in range(repeats)])


def line_of(case: Case, options: argparse.Namespace) -> Line:
    """Return the share of a round that the default analyses take."""
    parts = {name: seconds(observing(case, measures), options.repeats) for name, measures in MEASURES.items()}
    gradients = seconds(watching(case), 20) * CLIENTS * STEPS
    num_tokens = 32 if options.quick else TOKENS
    token_s = seconds(stepping(case, num_tokens), options.repeats) * BLOCKS / num_tokens
    scale = BLOCKS / case.num_blocks
    whole = scale * (max(parts.values()) + gradients)
    round_s = token_s * CLIENTS * STEPS * ROWS * TOKENS
    told = ", ".join(f"{name} {scale * spent:.2f} s" for name, spent in parts.items())
    return Line(
        what=f"default analyses, {case.name}, of the local steps of a round",
        value=100 * whole / round_s,
        unit="%",
        target=100 * TARGET,
        note=f"{CLIENTS} clients, {STEPS} steps of {ROWS} x {TOKENS} tokens: {round_s:.0f} s; {told}, gradients "
        f"{scale * gradients:.2f} s; {100 * TARGET:.0f} % of a round of {whole / TARGET / token_s:,.0f} tokens",
    )


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return 0 if every target was met, else 1."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    options = parser.parse_args(arguments)
    options.repeats = 1 if options.quick else 5
    num_blocks = 2 if options.quick else BLOCKS
    cases = [
        Case(name="attention, rank 8", target="attention", shapes=ATTENTION, rank=8, num_blocks=num_blocks),
        Case(name="all seven projections, rank 16", target="all", shapes=ALL, rank=16, num_blocks=num_blocks),
    ]
    lines = [line_of(case, options) for case in cases]
    tell("analysis", lines, options)
    return 0 if all(line.verdict in {"met", ""} for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
