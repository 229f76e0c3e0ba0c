"""Many clients in one forward pass: `python experiments/benchmarks/clients.py`.

Trains k clients of one round, each with its own rows, LoRA factors and AdamW, by the trainers of the package: one after
the other (`local.clients_per_batch=1`), together (`=k`), and, as the upper bound of what one pass can give, one client
with k times as many rows a batch, through one adapter. The ratio is tokens per CPU second over one after the other's.
What a trainer does around its steps (writing the model, taking out what was trained) is on all sides; encoding is on
none. Clients that are trained together must end where they end alone.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from lines import Line, add_arguments, tell
from local_training import Shape
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin

from fedlit.algebra.tensors import distance
from fedlit.client.host import ModelHost
from fedlit.client.steps import ClientModule, LocalSteps
from fedlit.client.trainers.base import LocalTrainer
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.client.trainers.together import TogetherTrainer
from fedlit.config import ComputeConfig, DataConfig, EvalConfig, LocalConfig, MethodConfig, RunConfig
from fedlit.data.collation import Example
from fedlit.launch import quieten
from fedlit.methods import build_method
from fedlit.models import Backbone
from fedlit.process import communication
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Start
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan
from fedlit.seeding import torch_stream
from fedlit.tasks.causal_lm.task import CausalLM

SHAPES = ("tiny/1/32", "tiny/1/128", "256/4/1/32", "256/4/1/128", "512/8/1/32", "512/8/1/128")
SHARE_OF_BOUND = 0.85


@dataclass(frozen=True, kw_only=True)
class ReadyExamples(CausalLM):
    """Rows that are examples already: {"example": ...}."""

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return the examples."""
        return [row["example"] for row in rows]


class Workload:
    """Clients of one shape, ready to be trained in three ways."""

    def __init__(self, shape: Shape, num_clients: int, num_steps: int, fabric: Any) -> None:
        self.num_clients, self.num_steps, self.fabric = num_clients, num_steps, fabric
        self.num_tokens = shape.num_tokens * shape.batch_size * num_steps * num_clients
        self.local = LocalConfig(steps=num_steps, batch_size=shape.batch_size)
        self.method = build_method(RunConfig(method=MethodConfig(name="fedit"), local=self.local))
        backbone = shape.backbone()
        with torch_stream(0, "benchmark/adapter"):
            self.method.attach(backbone.model, backbone.projections)
        self.backbone = backbone
        self.host = ModelHost(backbone.model, self.method, self.method.adapter.layers(backbone.model))
        self.task = _task(backbone, shape)
        num_vocab = backbone.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        self.examples = _examples(shape, num_steps * num_clients, num_vocab)

    def trainer(self, *, size: int = 1, rows: int = 1) -> LocalTrainer:
        """Return a trainer of groups of `size`, with so many rows in a batch."""
        local = replace(self.local, batch_size=self.local.batch_size * rows)
        module = ClientModule(self.backbone.model, self.task, self.method, self.host.trained)
        self.fabric.setup_module(module)
        common: dict[str, Any] = {
            "host": self.host,
            "module": module,
            "steps": LocalSteps(fabric=self.fabric, module=module, local=local),
            "local": local,
            "seed": 0,
            "num_rounds": 1,
        }
        return SerialTrainer(**common) if size == 1 else TogetherTrainer(size=size, at_home=False, **common)

    def jobs(self, num_clients: int) -> list[ClientJob]:
        """Return the jobs of a round in which all rows are dealt to so many clients."""
        server = self.host.first_server((), num_clients)
        ids = tuple(range(num_clients))
        plan = RoundPlan(
            round_idx=0,
            invited=ids,
            arriving=ids,
            weights=dict.fromkeys(ids, 1 / num_clients),
            trains=self.host.trains(0),
        )
        rows = [{"example": example} for example in self.examples]
        each = len(rows) // num_clients
        return [
            ClientJob(
                client_id=client_id,
                rows=rows[client_id * each : (client_id + 1) * each],
                start=Start(groups={MODEL: server.shared}),
                state=ClientState(),
                plan=plan,
            )
            for client_id in ids
        ]

    def variants(self) -> dict[str, Callable[[], Elapsed]]:
        """Return the ways by name; each call trains one round and returns its time."""
        clients, one = self.jobs(self.num_clients), self.jobs(1)
        serial, joined = self.trainer(), self.trainer(size=self.num_clients)
        whole = self.trainer(rows=self.num_clients)
        _require_same(list(serial.train(clients)), list(joined.train(clients)))
        gc.collect()
        gc.freeze()
        return {
            "serial": lambda: _timed(serial, clients),
            "null": lambda: _timed(serial, clients),
            "together": lambda: _timed(joined, clients),
            "bound": lambda: _timed(whole, one),
        }


def _task(backbone: Backbone, shape: Shape) -> ReadyExamples:
    return ReadyExamples(
        tokenizer=backbone.tokenizer,
        data=DataConfig(),
        eval=EvalConfig(),
        max_length_tokens=shape.num_tokens,
        loss_on="response",
    )


def _examples(shape: Shape, num_rows: int, num_vocab: int) -> list[Example]:
    num_batches = -(-num_rows * shape.batch_size // shape.batch_size)
    batches = shape.batches(num_batches, num_vocab)
    num_prompt = shape.num_tokens - batches[0].num_labels[0]
    return [
        Example(token_ids=tuple(row), num_prompt_tokens=num_prompt, prompt="", response="", truncated=False)
        for batch in batches
        for row in batch.token_ids.tolist()
    ]


def _timed(trainer: LocalTrainer, jobs: list[ClientJob]) -> Elapsed:
    gc.collect()
    watch = Stopwatch()
    for result in trainer.train(jobs):
        assert result.payload is not None
    return watch.elapsed()


def _require_same(alone: Sequence[ClientResult], together: Sequence[ClientResult]) -> None:
    """Stop if clients end elsewhere together than alone."""
    for one, other in zip(alone, together, strict=True):
        assert one.payload is not None
        assert other.payload is not None
        far = distance(one.payload[MODEL], other.payload[MODEL]) / one.metrics["update_norm"]
        # AdamW's first step has the sign of a gradient alone, however small: in float32 a few signs differ.
        assert far < 1e-2, f"client {one.client_id} ends elsewhere, by {far} of what it trained"


def measure(shape: Shape, fabric: Any, arguments: argparse.Namespace) -> list[Line]:
    """Return the lines of one shape: of the bound, and of training together as a share of it."""
    num_pairs, num_steps = (2, 1) if arguments.quick else (arguments.pairs, arguments.steps)
    workload = Workload(shape, arguments.clients, num_steps, fabric)
    timings = interleave(workload.variants(), num_pairs, seed=0)
    cpu = {name: [one.cpu_s for one in blocks] for name, blocks in timings.items()}
    wall = {name: [one.wall_s for one in blocks] for name, blocks in timings.items()}
    ratios = {name: Ratio.of(cpu["serial"], cpu[name]) for name in ("null", "together", "bound")}
    share = Ratio.of(cpu["bound"], cpu["together"])
    tokens_per_s = workload.num_tokens / median(cpu["together"])
    note = (
        f"{ratios['together'].median:.2f} times the tokens of one after the other, "
        f"the bound {ratios['bound'].median:.2f}; "
        f"{tokens_per_s:,.0f} tokens a CPU second; wall {Ratio.of(wall['serial'], wall['together']).median:.2f}"
    )
    return [
        Line(
            what=f"{arguments.clients} clients in one pass, {shape}: share of the bound",
            value=share.median,
            interval=share.interval,
            null=ratios["null"].median,
            target=SHARE_OF_BOUND,
            better="at least",
            note=note,
        )
    ]


def main(words: list[str]) -> None:
    """Measure every shape."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--shapes", nargs="+", type=Shape.parse, help="hidden/layers/rows/tokens, or tiny/rows/tokens")
    parser.add_argument("--clients", type=int, default=8, help="of one pass")
    parser.add_argument("--steps", type=int, default=3, help="of each client in a timing")
    parser.add_argument("--pairs", type=int, default=15, help="timings of each way")
    arguments = parser.parse_args(words)
    shapes = arguments.shapes or [Shape.parse(text) for text in (SHAPES[2:3] if arguments.quick else SHAPES)]
    quieten()
    fabric = communication.launch(ComputeConfig(accelerator="cpu", threads=1))
    try:
        lines = [line for shape in shapes for line in measure(shape, fabric, arguments)]
    finally:
        communication.shutdown()
    tell("clients", lines, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
