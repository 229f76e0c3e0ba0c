"""What a checkpoint costs a run: `python experiments/benchmarks/checkpoint.py`.

bytes      what a round writes over the bytes of what it must write: the server's tensors and what the round's clients
           keep, private tensors and moments, in their own types. Counted by the kernel (/proc/self/io), so that
           manifests, tables and copies of records count too.
clients    a round of 8 clients out of 1,000 that keep something over a round of all 8 out of 8: CPU time of all
           threads, and the files that are opened.
delay      time of a round of bare PyTorch training with a checkpoint over one without, in turns. A turn with one
           begins the saving, trains, and waits for the end of the saving, as the next round's save does. The process
           stays on one core, which the writer and the training share, and has another go on all cores.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Stopwatch, interleave, median, median_interval, pin
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from fedlit.algebra.tensors import TensorDict
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.checkpoint import Checkpoints

COHORT, POPULATION = 8, 1000
RECORD = '"client/{}/train_loss": 1.2345678, "client/{}/num_steps": 8, "client/{}/update_norm": 0.12345678, '
"""What a round's record says of each client, about."""


@dataclass(kw_only=True)
class Run:
    """A run folder whose rounds have tensors of these sizes, and no training.

    shared: scalars of the server, in 8 tensors. moments: scalars that a server optimizer keeps. kept: scalars that a
    client keeps to itself, in 8 tensors; twice as many are its optimizer's. clients: of the population.
    """

    folder: Path
    shared: int
    moments: int = 0
    kept: int = 0
    clients: int = 0
    round_idx: int = -1
    states: dict[int, ClientState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the first round's checkpoint, which holds every client."""
        self.folder.mkdir(parents=True)
        self.checkpoints = Checkpoints(folder=self.folder / "checkpoints", keep=2)
        self.states = {client: self._state() for client in range(self.clients)}
        self.next_round(range(self.clients))
        self.wait()

    def _state(self) -> ClientState:
        moments = {i: {"exp_avg": one, "exp_avg_sq": one + 1} for i, one in enumerate(tensors(self.kept).values())}
        groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [*moments]}]
        return ClientState(private=tensors(self.kept), optimizer={"state": moments, "param_groups": groups})

    def record_rounds(self, number: int) -> None:
        """Add the records of so many rounds."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            for _ in range(number):
                self.round_idx += 1
                file.write(f'{{{"".join(RECORD.format(*[i] * 3) for i in range(COHORT))}"round": {self.round_idx}}}\n')

    def next_round(self, changed: Sequence[int]) -> None:
        """Do as the end of a round does: a line of the record, then the checkpoint."""
        self.record_rounds(1)
        server = ServerState(round_idx=self.round_idx, shared=tensors(self.shared), optimizer=tensors(self.moments))
        self.states.update({client: self._state() for client in changed})
        self.checkpoints.save(server, self.states, set(changed), self.folder / "metrics.jsonl")

    def wait(self) -> None:
        """Wait until all is written."""
        getattr(self.checkpoints, "settle", lambda: None)()

    def cohort(self) -> list[int]:
        """Return the clients of the next round: neighbours, who are others in each round."""
        return [(self.round_idx * COHORT + i) % self.clients for i in range(COHORT if self.clients else 0)]

    def num_bytes(self) -> int:
        """Return the bytes that a round must write, in float32."""
        return 4 * (self.shared + self.moments + 3 * self.kept * (COHORT if self.clients else 0))


def tensors(num_scalars: int) -> TensorDict:
    """Return 8 tensors of so many scalars together, none for 0."""
    names = [f"model.layers.{i}.self_attn.q_proj.lora_A.default.weight" for i in range(8)] if num_scalars else []
    return {name: torch.full((num_scalars // 8,), 0.5) for name in names}


def written() -> int:
    """Return the bytes that this process has handed to the kernel for writing."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


class Opened:
    """Counts the files and folders that Python opens, of all threads."""

    def __init__(self) -> None:
        self.number = 0
        sys.addaudithook(self._see)

    def _see(self, event: str, _arguments: tuple[Any, ...]) -> None:
        self.number += event in ("open", "os.scandir", "os.listdir")


def bytes_line(run: Run, what: str, rounds: int) -> Line:
    """Return the bytes of a round over those that it must write, after so many rounds."""
    run.record_rounds(rounds - 3)
    for _ in range(2):
        run.next_round(run.cohort())
        run.wait()
    before = written()
    run.next_round(run.cohort())
    run.wait()
    ratio, mega = (written() - before) / run.num_bytes(), run.num_bytes() / 1e6
    return Line(what=f"bytes, {what}", value=ratio, target=1.05, note=f"{mega:.3g} MB to be written")


def clients_lines(folder: Path, num_pairs: int, kept: int, population: int) -> list[Line]:
    """Return what a round of 8 clients out of many costs over one of 8 out of 8."""
    runs = {
        number: Run(folder=folder / f"of-{number}", shared=8, kept=kept, clients=number)
        for number in (COHORT, population)
    }
    opened, counts = Opened(), {}

    def once(number: int) -> Callable[[], Elapsed]:
        def block() -> Elapsed:
            run = runs[number]
            changed = run.cohort()
            before, watch = opened.number, Stopwatch()
            run.next_round(changed)
            run.wait()
            counts[number] = opened.number - before
            return watch.elapsed()

        return block

    for _ in range(3):
        once(COHORT)(), once(population)()
    times = interleave({"few": once(COHORT), "null": once(COHORT), "many": once(population)}, num_pairs, seed=0)
    few, null, many = ([one.cpu_s for one in times[name]] for name in ("few", "null", "many"))
    note = f"{1e3 * median(few):.1f} and {1e3 * median(many):.1f} ms of CPU time; {12 * kept / 1e3:.0f} kB a client"
    return [
        paired(
            f"clients, CPU time of a save, {COHORT} of {population} over {COHORT} of {COHORT}",
            many,
            few,
            null,
            1.1,
            note,
        ),
        Line(
            what=f"clients, files opened, {COHORT} of {population} over {COHORT} of {COHORT}",
            value=counts[population] / counts[COHORT],
            target=1.0,
            note=f"{counts[COHORT]} and {counts[population]}",
        ),
    ]


def paired(
    what: str, mine: Sequence[float], base: Sequence[float], null: Sequence[float], target: float, note: str
) -> Line:
    """Return the line of the median ratio of pairs."""
    ratios = [one / other for one, other in zip(mine, base, strict=True)]
    nulls = [one / other for one, other in zip(null, base, strict=True)]
    return Line(
        what=what, value=median(ratios), interval=median_interval(ratios), null=median(nulls), target=target, note=note
    )


@dataclass(frozen=True, kw_only=True)
class Work:
    """A round of bare training: steps of AdamW on 4 rows of 128 tokens through a Llama of 5.8 M parameters."""

    num_steps: int
    model: Any
    optimizer: torch.optim.Optimizer
    rows: Tensor

    @classmethod
    def of(cls, num_steps: int) -> "Work":
        """Return the work of a round of so many steps."""
        torch.manual_seed(0)
        sizes: dict[str, Any] = {
            "hidden_size": 256,
            "num_hidden_layers": 6,
            "intermediate_size": 688,
            "vocab_size": 4096,
        }
        model: Any = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=True))
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        work = cls(num_steps=num_steps, model=model, optimizer=optimizer, rows=torch.randint(0, 4096, (4, 128)))
        work()
        return work

    def __call__(self) -> None:
        """Train for a round."""
        for _ in range(self.num_steps):
            self.model(input_ids=self.rows, labels=self.rows).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


def delay_lines(run: Run, what: str, work: Work, num_pairs: int) -> list[Line]:
    """Return how much longer a round takes when the checkpoint of the round before is written meanwhile."""

    def with_save() -> Elapsed:
        changed, watch = run.cohort(), Stopwatch()
        run.next_round(changed)
        work()
        run.wait()
        return watch.elapsed()

    def without() -> Elapsed:
        watch = Stopwatch()
        work()
        return watch.elapsed()

    with_save()
    lines, mega, cores = [], run.num_bytes() / 1e6, os.sched_getaffinity(0)
    for name, allowed in (("one core", {min(cores)}), (f"{len(cores)} cores", cores)):
        os.sched_setaffinity(0, allowed)
        times = interleave({"without": without, "null": without, "with": with_save}, num_pairs, seed=0)
        base, null, mine = ([one.wall_s for one in times[key]] for key in ("without", "null", "with"))
        cpu_s = median([one.cpu_s - other.cpu_s for one, other in zip(times["with"], times["without"], strict=True)])
        note = f"round of {median(base):.2f} s, {mega:.3g} MB; {1e3 * cpu_s:.0f} ms of CPU time more"
        lines.append(paired(f"delay, {what}, {name}", mine, base, null, 1.02, note))
    return lines


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=7, help="turns of the delay; ten times as many of the clients")
    parser.add_argument("--folder", type=Path, help="where to write: a folder of the file system to be measured")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    quick = options.quick
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        lora: dict[str, Any] = {"shared": 720_896, "kept": 405_504, "clients": COHORT}
        dense: dict[str, Any] = {"shared": 5_795_072}
        lines = [
            bytes_line(Run(folder=folder / "a", **dense), "5.8 M shared parameters, round 10", 10),
            bytes_line(Run(folder=folder / "b", **lora), "FedSA-LoRA at TinyLlama's shapes, round 10", 10),
            bytes_line(Run(folder=folder / "c", shared=65_536), "65,536 shared parameters, round 1,000", 1000),
            *clients_lines(folder / "d", 6 if quick else 10 * options.pairs, 8192, 100 if quick else POPULATION),
        ]
        work = Work.of(1 if quick else 8)
        pairs = 1 if quick else options.pairs
        lines += delay_lines(Run(folder=folder / "e", **dense), "5.8 M shared", work, pairs)
        tell("checkpoint", lines, options)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
