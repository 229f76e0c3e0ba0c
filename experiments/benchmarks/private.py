"""Scoring private clients: `python experiments/benchmarks/private.py`.

Every client's own model (FedSA-LoRA: the server's A, its own B) is scored on one fixed sample, as a round's evaluation
does it: one client after the other, and several in one forward pass (`local.clients_per_batch=k`). Both sides are
`Evaluator.of_each_client` on the packaged model, with the scores of the run. The scores must agree.
"""

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin

from fedlit.client.host import ModelHost
from fedlit.client.together.groups import groups_of
from fedlit.config import ComputeConfig, DataConfig, EvalConfig, MethodConfig, ModelConfig, RunConfig
from fedlit.launch import quieten
from fedlit.methods import build_method
from fedlit.models import load_backbone
from fedlit.process import communication
from fedlit.round.client_models import ClientModels
from fedlit.round.evaluation import Evaluator
from fedlit.seeding import torch_stream
from fedlit.tasks.causal_lm.task import CausalLM

TARGET = 4.0
WORDS = ("close", "read", "write", "merge", "sort", "open", "compare", "send")
PROTOCOLS = ("teacher_forced", "generate")


class Workload:
    """Clients with factors of their own, and a sample on which all of them are scored."""

    def __init__(self, num_clients: int, num_examples: int, protocol: str, num_new_tokens: int, fabric: Any) -> None:
        backbone = load_backbone(ModelConfig())
        method = build_method(RunConfig(method=MethodConfig(name="fedsa_lora")))
        with torch_stream(0, "benchmark/adapter"):
            method.attach(backbone.model, backbone.projections)
        self.host = ModelHost(backbone.model, method, method.adapter.layers(backbone.model))
        self.clients = range(num_clients)
        names = method.private(backbone.model)
        self.private = [
            {name: 0.02 * torch.randn(tensor.shape, generator=_generator(client)) for name, tensor in names.items()}
            for client in self.clients
        ]
        evaluation = EvalConfig(protocol=protocol, max_new_tokens=num_new_tokens)
        data = DataConfig(prompt="prompt", response="response", template="${prompt}", scores=["rouge_l"])
        task = CausalLM(
            tokenizer=backbone.tokenizer, data=data, eval=evaluation, max_length_tokens=64, loss_on="response"
        )
        rows = [
            {"prompt": f"def {WORDS[i % len(WORDS)]}_{i}(file):", "response": f"{WORDS[i % len(WORDS)]} file {i}."}
            for i in range(num_examples)
        ]
        batches = task.evaluation_batches(task.evaluation_examples(rows), evaluation.batch_size)
        self.evaluator = Evaluator(fabric=fabric, model=backbone.model, task=task, batches=batches)

    def scores(self, size: int) -> dict[int, dict[str, Any]]:
        """Return all clients' scores, so many clients at once."""
        models = ClientModels(
            population=self.clients,
            mine=self.clients,
            load=lambda client: self.host.load_private(self.private[client]),
            groups=lambda clients: groups_of(clients, size, at_home=True),
            load_together=lambda clients: self.host.models_of([self.private[client] for client in clients]),
        )
        return self.evaluator.of_each_client(self.clients, models)

    def timed(self, size: int) -> Elapsed:
        """Return the time of one scoring of all clients."""
        gc.collect()
        watch = Stopwatch()
        self.scores(size)
        return watch.elapsed()


def measure(protocol: str, fabric: Any, arguments: argparse.Namespace) -> Line:
    """Return the line of one protocol."""
    num_clients, num_pairs = (8, 1) if arguments.quick else (arguments.clients, arguments.pairs)
    workload = Workload(num_clients, arguments.examples, protocol, arguments.new_tokens, fabric)
    alone, together = workload.scores(1), workload.scores(arguments.size)
    for client, scores in alone.items():
        assert abs(scores["loss"] - together[client]["loss"]) < 1e-4, f"client {client}: {scores}, {together[client]}"
    gc.collect()
    gc.freeze()
    variants = {
        "alone": lambda: workload.timed(1),
        "null": lambda: workload.timed(1),
        "together": lambda: workload.timed(arguments.size),
    }
    cpu = {name: [one.cpu_s for one in some] for name, some in interleave(variants, num_pairs, seed=0).items()}
    ratio = Ratio.of(cpu["alone"], cpu["together"])
    each = [median(cpu[name]) / num_clients for name in ("alone", "together")]
    return Line(
        what=f"private clients scored, {arguments.size} at once, {protocol}",
        value=ratio.median,
        interval=ratio.interval,
        null=Ratio.of(cpu["alone"], cpu["null"]).median,
        target=TARGET,
        better="at least",
        note=(
            f"{each[0]:.3f} and {each[1]:.3f} CPU s a client; {num_clients} clients, {arguments.examples} examples, "
            f"packaged model; {_same(alone, together)}"
        ),
    )


def _generator(client: int) -> torch.Generator:
    return torch.Generator().manual_seed(client)


def _same(alone: dict[int, dict[str, Any]], together: dict[int, dict[str, Any]]) -> str:
    names: Sequence[str] = [name for name in alone[0] if name != "loss"]
    equal = sum(all(alone[client][name] == together[client][name] for name in names) for client in alone)
    return f"{equal} of {len(alone)} clients have equal {', '.join(names)}"


def main(words: list[str]) -> None:
    """Measure both protocols."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--clients", type=int, default=64, help="that are scored in one timing")
    parser.add_argument("--size", type=int, default=16, help="clients of one forward pass")
    parser.add_argument("--examples", type=int, default=4, help="of the fixed sample")
    parser.add_argument("--new-tokens", type=int, default=16, help="generated after each prompt")
    parser.add_argument("--pairs", type=int, default=7, help="timings of each way")
    arguments = parser.parse_args(words)
    quieten()
    fabric = communication.launch(ComputeConfig(accelerator="cpu", threads=1))
    try:
        lines = [measure(protocol, fabric, arguments) for protocol in PROTOCOLS]
    finally:
        communication.shutdown()
    tell("private", lines, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
