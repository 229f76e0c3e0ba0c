"""Rounds under client-level privacy, and masked ones, over plain: `python experiments/benchmarks/private_rounds.py`.

Each side is `fedlit run` as a person starts it, a process of its own with one thread: rows from a file, records, status
and a checkpoint every round. Both train the same clients on the same rows. A private round has all that
`privacy.unit=client` adds: every client's change is shortened to the clip norm, the sum gets noise, the ledger and the
record tell what has been spent, by PLD of a deployment that draws clients by themselves. All clients come in every
round on both sides. A masked round has all that `privacy.secure_aggregation=true` adds: one core does the work of all
clients.

The sides take turns within one process tree, in random order; a turn is one round, and the first two are not counted,
which leaves out the accountant's first call: it has a line of its own. The ratio is the median over the pairs of CPU
seconds. The null control is another plain process over the plain one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from federation import shares
from federation_inputs import Shape, write_model, write_rows
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, interleave, median, pin
from turns import Side

SCRIPT = str(Path(__file__).resolve().with_name("federation.py"))
NUM_WARM = 2
"""Rounds before the first that counts."""
TARGET = 1.05
"""Of a private round over a plain one."""
FIRST_CALL = """
import time
from fedlit.privacy.accounting import Mechanism, spent
began = time.process_time()
spent(Mechanism(sampling="poisson", cohort_size=8, population=80, noise_multiplier=1.0), 1, 1e-5)
first = time.process_time() - began
later = []
for releases in range(2, 12):
    began = time.process_time()
    spent(Mechanism(sampling="poisson", cohort_size=8, population=80, noise_multiplier=1.0), releases, 1e-5)
    later.append(time.process_time() - began)
print(first, sorted(later)[5])
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Rounds of one shape. method: words of it. sides: beside `plain` and `null`. pairs: rounds of each that count."""

    name: str
    shape: Shape
    method: Sequence[str] = ("method=fedit", "method.target_modules=all")
    sides: Sequence[str] = ("private",)
    pairs: int
    targets: Mapping[str, float] = field(default_factory=lambda: {"private": TARGET})

    def words(self, folder: Path, side: str) -> list[str]:
        """Return the words of `fedlit run` of a side."""
        shape, added = self.shape, []
        if "private" in side:
            added += ["privacy.unit=client", "privacy.clip_norm=0.5", "privacy.noise_multiplier=1"]
            added += ["cohort.sampling=poisson", f"privacy.noise_cohort_size={shape.clients}"]
            added += [f"privacy.population={10 * shape.clients}"]
        if "masked" in side:
            added += ["privacy.secure_aggregation=true"]
        rank = [f"method.lora_rank={shape.rank}"] if "method=fedit" in self.method else []
        return [
            *("data=jsonl", f"data.path={folder / 'rows.jsonl'}", f"data.test_path={folder / 'test.jsonl'}"),
            *("data.label=null", "partition.name=natural", "partition.column=client"),
            *(f"model.path={folder / 'model'}", "model.weights=random", "model.name=random-llama"),
            *(*self.method, *rank, "method.weighting=uniform"),
            *(f"num_clients={shape.clients}", "num_rounds=1000000", f"local.steps={shape.steps}"),
            *(f"local.batch_size={shape.batch_size}", f"local.lr={shape.lr}"),
            *("eval.every=1000000", "eval.max_new_tokens=1", "analysis=[]", "logging.loggers=[]"),
            *("compute.accelerator=cpu", f"run.dir={folder / 'runs'}", f"run.name={side}"),
            *added,
        ]


def cases(*, quick: bool) -> list[Case]:
    """Return the rounds that are measured."""
    if quick:
        small = Shape(hidden=64, layers=2, rank=4, clients=4, steps=1, batch_size=1, num_tokens=16, rows=4)
        return [Case(name="quick", shape=small, sides=("private", "masked"), pairs=2)]
    real = Shape(hidden=256, layers=4, rank=8, clients=8, steps=8, batch_size=4, num_tokens=128, rows=32)
    thin = Shape(hidden=256, layers=4, rank=8, clients=64, steps=1, batch_size=1, num_tokens=32, rows=4)
    dense = Shape(hidden=256, layers=4, rank=8, clients=8, steps=8, batch_size=4, num_tokens=128, rows=32)
    ten = Shape(hidden=256, layers=4, rank=8, clients=10, steps=8, batch_size=4, num_tokens=128, rows=32)
    return [
        Case(name="LoRA of rank 8", shape=real, pairs=6),
        Case(name="many thin clients", shape=thin, pairs=20),
        Case(name="all parameters", shape=dense, method=("method=full",), pairs=6),
        Case(name="masks, LoRA of rank 8", shape=ten, sides=("masked",), pairs=6, targets={}),
    ]


def measure(case: Case) -> list[Line]:
    """Return the lines of one case."""
    names = ["plain", "null", *case.sides]
    sides: dict[str, Side] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "model").mkdir()
        write_rows(folder, case.shape, write_model(folder / "model", case.shape))
        try:
            for name in names:
                words = [SCRIPT, "--worker", "fedlit", json.dumps(case.words(folder, name))]
                side = sides[name] = Side(words, 1, folder / f"{name}.log")
                for _ in range(NUM_WARM):
                    side.turn()
                side.parts.clear()
            turns = interleave({name: side.turn for name, side in sides.items()}, case.pairs, seed=0)
        finally:
            for side in sides.values():
                side.close()
    return [line_of(case, name, turns, sides[name].parts) for name in case.sides]


def line_of(
    case: Case, side: str, turns: Mapping[str, Sequence[Elapsed]], parts: Sequence[Mapping[str, float]]
) -> Line:
    """Return what the turns of a side say against the plain ones."""
    cpu_s = {name: [turn.cpu_s for turn in some] for name, some in turns.items()}
    ratio, shape = Ratio.of(cpu_s[side], cpu_s["plain"]), case.shape
    return Line(
        what=f"a {side} round over a plain one: {case.name}, {shape.clients} clients x {shape.steps} "
        f"step{'s' * (shape.steps > 1)} of {shape.batch_size} x {shape.num_tokens}",
        value=ratio.median,
        interval=ratio.interval,
        null=Ratio.of(cpu_s["null"], cpu_s["plain"]).median,
        target=case.targets.get(side),
        note=f"{median(cpu_s[side]):.3f} over {median(cpu_s['plain']):.3f} s of CPU a round; "
        f"{shares(parts, turns[side])}",
    )


def first_call_lines() -> list[Line]:
    """Return what the accountant takes when it is first asked, with its imports, and for each later round."""
    done = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True)
    first, later = map(float, done.stdout.split())
    what = "the accountant (PLD, Poisson, 8 of 80, noise 1)"
    return [
        Line(what=f"{what}: its first call, with imports", value=first, unit="s", note="once a run"),
        Line(what=f"{what}: a later round", value=later, unit="s", note="in every private round"),
    ]


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="the cases whose names have this in them")
    parser.add_argument("--pairs", type=int, help="rounds of each side that count, in place of the case's own number")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    lines = first_call_lines()
    for case in cases(quick=options.quick):
        if options.only in case.name:
            chosen = case if options.pairs is None else replace(case, pairs=options.pairs)
            lines += measure(chosen)
    tell("private_rounds", lines, options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
