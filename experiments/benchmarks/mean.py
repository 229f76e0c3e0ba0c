"""The fixed-point mean against a plain float32 all-reduce: `python experiments/benchmarks/mean.py`.

Two processes on the loopback, each with the same number of clients, whose tensors are in memory. On one side what a
round of fedlit does with them: `Cohort`, `add` for each client, `mean`. On the other a flat float32 buffer to which the
clients' weighted changes are added, one all-reduce, and the server's tensors moved by it. Then the share that the mean
has of a round of ten local steps on a model all of whose parameters are trained.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, Stopwatch, median, pin
from torch import Tensor

from fedlit.process import communication
from fedlit.round.cohort import Cohort
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan, weights_by_examples

NUM_PROCESSES = 2
RATIO_TARGET, SHARE_TARGET = 4.0, 0.01
NUM_LOCAL_STEPS, ROWS, TOKENS = 10, 4, 128

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One payload to be averaged.

    shapes: of its tensors. repeats: rounds in one timing. turns: timings of each side. model: hidden size and layers of
    the model that has these parameters; None where the payload is not a whole model.
    """

    name: str
    shapes: Shapes
    repeats: int
    turns: int
    model: tuple[int, int] | None = None

    @property
    def num_scalars(self) -> int:
        """Scalars of all tensors."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())


def factors(hidden: int, narrow: int, num_layers: int, rank: int) -> Shapes:
    """Return the shapes of LoRA factors of q (hidden x hidden), k and v (narrow x hidden) in every layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(num_layers):
        for name, num_out in (("q", hidden), ("k", narrow), ("v", narrow)):
            shapes |= {f"{layer}.{name}.A": (rank, hidden), f"{layer}.{name}.B": (num_out, rank)}
    return shapes


def build(hidden: int, num_layers: int) -> torch.nn.Module:
    """Return a Llama with random weights; its vocabulary is small, so that nearly all parameters are in the layers."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  seconds, and only here

    sizes = {"hidden_size": hidden, "intermediate_size": hidden * 43 // 16, "num_hidden_layers": num_layers}
    heads = {"num_attention_heads": max(1, hidden // 64), "vocab_size": 1024}
    config = LlamaConfig(**sizes, **heads, tie_word_embeddings=True, use_cache=False)
    torch.manual_seed(0)
    model: torch.nn.Module = LlamaForCausalLM(config)
    return model


def shapes_of(hidden: int, num_layers: int) -> Shapes:
    """Return the shapes of the model's parameters, without memory for them."""
    with torch.device("meta"):
        return {name: tuple(parameter.shape) for name, parameter in build(hidden, num_layers).named_parameters()}


def cases(*, quick: bool) -> list[Case]:
    """Return the payloads: thin factors, and two models that are trained whole."""
    if quick:
        return [
            Case(name="factors", shapes=factors(64, 32, 2, 4), repeats=2, turns=6),
            Case(name="whole model", shapes=shapes_of(64, 1), repeats=2, turns=6, model=(64, 1)),
        ]
    return [
        Case(name="TinyLlama's factors, rank 8", shapes=factors(2048, 256, 22, 8), repeats=8, turns=20),
        Case(name="750 tensors of 2,048", shapes={str(i): (1, 2048) for i in range(750)}, repeats=8, turns=20),
        Case(name="model 256 x 2", shapes=shapes_of(256, 2), repeats=8, turns=20, model=(256, 2)),
        Case(name="model 512 x 8", shapes=shapes_of(512, 8), repeats=1, turns=12, model=(512, 8)),
    ]


def chosen(options: argparse.Namespace) -> list[Case]:
    """Return the payloads that the command line asks for."""
    found = [case for case in cases(quick=options.quick) if options.only in case.name]
    return [replace(case, turns=options.turns or case.turns) for case in found]


class Sides:
    """Both ways to the mean of one payload, on one process of the group.

    Args:
        case: the payload.
        num_clients: on each process.
    """

    def __init__(self, case: Case, num_clients: int) -> None:
        everyone = tuple(range(NUM_PROCESSES * num_clients))
        generator = torch.Generator().manual_seed(0)
        self._server = {name: torch.randn(shape, generator=generator) for name, shape in case.shapes.items()}
        weights = weights_by_examples([10 + 5 * client for client in everyone])
        self._plan = RoundPlan(
            round_idx=0,
            invited=everyone,
            arriving=everyone,
            weights=dict(zip(everyone, weights, strict=True)),
            trains=frozenset(self._server),
        )
        self._clients = {}
        for client_id in communication.share(everyone):
            generator.manual_seed(1 + client_id)
            self._clients[client_id] = {
                name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
                for name, tensor in self._server.items()
            }

    def plain(self) -> Sequence[Tensor]:
        """Return the mean in float32: weighted changes in one flat buffer, one all-reduce."""
        server = list(self._server.values())
        buffer = torch.zeros(sum(tensor.numel() for tensor in server))
        parts = torch.split(buffer, [tensor.numel() for tensor in server])
        sums = [part.view(tensor.shape) for part, tensor in zip(parts, server, strict=True)]
        for client_id, tensors in self._clients.items():
            changes = torch._foreach_sub(list(tensors.values()), server)
            torch._foreach_add_(sums, changes, alpha=self._plan.weights[client_id])
        dist.all_reduce(buffer)
        return torch._foreach_add(sums, server)

    def fixed(self) -> Sequence[Tensor]:
        """Return the mean as a round of fedlit makes it."""
        cohort = Cohort(self._plan, {MODEL: self._server})
        for client_id, tensors in self._clients.items():
            cohort.add(client_id, {MODEL: tensors})
        cohort.close(self._plan.arriving)
        return list(cohort.mean().values())

    def require_agreement(self) -> None:
        """Stop unless both sides give one mean, up to float32."""
        for left, right in zip(self.plain(), self.fixed(), strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=2e-6)


class Steps:
    """Local steps of one client as a bare loop takes them: forward, backward, fused AdamW.

    Args:
        model: hidden size and layers.
    """

    def __init__(self, model: tuple[int, int]) -> None:
        self._model = build(*model).train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-4, fused=True)
        self._rows = torch.randint(1024, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))

    def take(self, num: int) -> None:
        """Take so many steps."""
        for _ in range(num):
            self._model(input_ids=self._rows, labels=self._rows).loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)


def timed(work: Callable[[], object], repeats: int) -> Callable[[], Elapsed]:
    """Return a function that does the work so often, all processes together, and returns its time."""

    def block() -> Elapsed:
        communication.barrier()
        watch = Stopwatch()
        for _ in range(repeats):
            work()
        return watch.elapsed()

    return block


def measure(case: Case, num_clients: int) -> dict[str, Any]:
    """Return the seconds of every timing of each side on this process."""
    sides = Sides(case, num_clients)
    sides.require_agreement()
    steps = Steps(case.model) if case.model else None
    variants = {
        "plain": timed(sides.plain, case.repeats),
        "plain again": timed(sides.plain, case.repeats),
        "fixed": timed(sides.fixed, case.repeats),
    }
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in [*variants, "steps"]}
    walls: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(case.turns):
        for name in order.sample(list(variants), len(variants)):
            elapsed = variants[name]()
            seconds[name].append(elapsed.cpu_s / case.repeats)
            walls[name].append(elapsed.wall_s / case.repeats)
        if steps is not None and turn < 6:
            steps.take(turn == 0)  # the first one makes the optimizer's state
            watch = Stopwatch()
            steps.take(2)
            seconds["steps"].append(watch.elapsed().cpu_s * NUM_LOCAL_STEPS / 2)
    return {"cpu_s": seconds, "wall_s": walls}


def work(index: int, options: argparse.Namespace, folder: str) -> None:
    """Be one of the processes: measure every case, and leave the seconds in a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=index, world_size=NUM_PROCESSES)
    found = [measure(case, options.clients) for case in chosen(options)]
    (Path(folder) / f"{index}.json").write_text(json.dumps(found))
    communication.barrier()
    communication.shutdown()


def start_processes(options: argparse.Namespace, folder: str) -> None:
    """Let all processes do their work; leave with an error if one of them did."""
    context = multiprocessing.get_context("spawn")
    group = [context.Process(target=work, args=(index, options, folder)) for index in range(NUM_PROCESSES)]
    for process in group:
        process.start()
    for process in group:
        process.join()
    if failed := [process.exitcode for process in group if process.exitcode]:
        sys.exit(f"a process ended with exit code {failed[0]}")


def added(processes: Sequence[Mapping[str, Any]], clock: str, side: str) -> list[float]:
    """Return the seconds of all processes together, timing by timing."""
    return [sum(values) for values in zip(*(one[clock][side] for one in processes), strict=True)]


def lines_of(case: Case, num_clients: int, processes: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Return what the timings of one case say."""
    plain, again, fixed, steps = (
        added(processes, "cpu_s", side) for side in ("plain", "plain again", "fixed", "steps")
    )
    ratio = Ratio.of(fixed, plain)
    walls = {side: median(processes[0]["wall_s"][side]) for side in ("plain", "fixed")}
    lines = [
        Line(
            what=f"mean of {case.num_scalars:,} parameters ({case.name}) over a float32 all-reduce",
            value=ratio.median,
            interval=ratio.interval,
            null=Ratio.of(again, plain).median,
            target=RATIO_TARGET,
            note=f"{len(case.shapes)} tensors, {NUM_PROCESSES} x {num_clients} clients; CPU ms of a process: "
            f"{1e3 * median(plain) / NUM_PROCESSES:.1f}, {1e3 * median(fixed) / NUM_PROCESSES:.1f}; "
            f"wall: {1e3 * walls['plain']:.1f}, {1e3 * walls['fixed']:.1f}",
        )
    ]
    if steps:
        share = Ratio.of(fixed[: len(steps)], [num_clients * one for one in steps])
        bounds = share.interval and (100 * share.interval[0], 100 * share.interval[1])
        lines.append(
            Line(
                what=f"mean of {case.num_scalars:,} parameters: share of a round",
                value=100 * share.median,
                unit="%",
                interval=bounds,
                target=100 * SHARE_TARGET,
                note=f"{num_clients} clients a process, {NUM_LOCAL_STEPS} steps of {ROWS} x {TOKENS} each, "
                f"{1e3 * median(steps) / NUM_PROCESSES / NUM_LOCAL_STEPS:.0f} ms a step, all parameters trained",
            )
        )
    return lines


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return 0 if every target was met, else 1."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=2, help="clients of each process, 2 by default")
    parser.add_argument("--only", default="", metavar="TEXT", help="the payloads whose names have this in them")
    parser.add_argument("--turns", type=int, help="timings of each side; by default 12 or 20")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with tempfile.TemporaryDirectory() as folder:
        start_processes(options, folder)
        found = [json.loads((Path(folder) / f"{index}.json").read_text()) for index in range(NUM_PROCESSES)]
    cases_of_all = zip(chosen(options), zip(*found, strict=True), strict=True)
    lines = [line for case, processes in cases_of_all for line in lines_of(case, options.clients, processes)]
    tell("mean", lines, options)
    return 0 if all(line.verdict == "met" for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
