"""How the cost of a round grows: `python experiments/benchmarks/growth.py --json growth.json --plot docs/growth.svg`.

Each point is a federation on a random Llama with plain texts, in a process of its own that is forked from this one, so
that no start is measured. CPU seconds are those of the process between the ends of two rounds, the median over rounds;
memory is what the process has written beyond its parent, which
keeps what was freed, at the end of the round in which that is most; of several processes, each with its own start, it
is all they have. One thing is changed at a time from a base of 8 clients, a step of
1 x 64 tokens, rank 8, hidden 128 and 4 layers. Beside each curve stands the cost that is expected: proportional to the
work (floating-point operations, see `flops`), fitted by one factor to the base point alone.

`--redraw FILE` draws a JSON file that was written before.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from lines import Line, add_arguments, machine, tell
from paired_timing import pin
from real_runs import Shape, run, write_rows

import fedlit


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One federation. population: clients of the run, of which `clients` are in a round."""

    clients: int = 8
    population: int = 8
    processes: int = 1
    rank: int = 8
    tokens: int = 64
    layers: int = 4
    steps: int = 1
    batch: int = 1
    hidden: int = 128

    @property
    def shape(self) -> Shape:
        """Of the model."""
        return Shape(hidden=self.hidden, layers=self.layers)

    def flops(self) -> float:
        """Return the floating-point operations of a round's local steps: forward and backward through the frozen
        weights (2 each a token and parameter; no gradients of these), three passes through the factors, attention (12
        times tokens squared times width), and the output projection.
        """
        num_tokens = self.clients * self.steps * self.batch * self.tokens
        frozen = self.shape.num_parameters() - 2048 * self.hidden  # the embedding is looked up
        attention = 2 * 2 * 2 * self.tokens * self.hidden * self.layers * 2
        return num_tokens * (4 * frozen + 6 * self.shape.lora_parameters(self.rank) + attention)


SWEEPS: Mapping[str, Sequence[int]] = {
    "clients": (1, 4, 16, 64, 256),
    "population": (8, 50, 500, 5000),
    "processes": (1, 2, 4),
    "rank": (2, 8, 32, 128),
    "tokens": (16, 64, 256, 512),
    "layers": (1, 2, 4, 8),
}
QUICK: Mapping[str, Sequence[int]] = {"clients": (1, 2), "population": (8, 20)}
TITLES = {
    "clients": "clients on one process, all in each round",
    "population": "clients of the run, 8 of them in a round",
    "processes": "processes, 8 clients together",
    "rank": "rank of LoRA",
    "tokens": "tokens of a row",
    "layers": "layers of the model",
}


def changed(base: Point, name: str, value: int) -> Point:
    """Return the base with one thing changed; as many clients as are in a round make the population at least."""
    point = replace(base, **{name: value})
    return replace(point, population=point.clients) if name == "clients" else point


def words_of(point: Point, num_rounds: int) -> dict[str, Any]:
    """Return the options of a point."""
    return {
        "method": "fedit",
        "method.lora_rank": point.rank,
        "num_clients": point.population,
        "cohort_size": point.clients,
        "num_rounds": num_rounds,
        "local.steps": point.steps,
        "local.batch_size": point.batch,
        "local.loss_on": "all",
        "model.max_length_tokens": point.tokens,
    }


class Rounds(fedlit.Callback):
    """Keeps the process's CPU time at the end of each round, and its own memory: that which its parent has not."""

    def __init__(self) -> None:
        self.cpu_s: list[float] = []
        self.own_mb: list[float] = []

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Any]) -> None:
        """Note both."""
        self.cpu_s.append(time.process_time())
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        self.own_mb += [int(line.split()[1]) / 1e3 for line in lines if line.startswith("Private_Dirty:")]


def measured(point: Point, folder: Path, num_rounds: int) -> dict[str, float]:
    """Return cpu_s of a round and peak_mb of a point."""
    model = point.shape.save(folder)
    rows = write_rows(folder, max(8 * point.population, 256), max(point.tokens // 2, 8))
    if point.processes > 1:
        words = [f"{name}={value}" for name, value in words_of(point, num_rounds).items()]
        place = folder / f"run-{time.monotonic_ns()}"
        used = run([*words, f"compute.devices={point.processes}"], model, rows, place)
        return {
            "cpu_s": median(used.rounds[number]["cpu_s"] for number in used.rounds if number > 1),
            "peak_mb": used.peak_mb,
        }
    context = multiprocessing.get_context("fork")
    found: Any = context.SimpleQueue()
    process = context.Process(target=_in_child, args=(point, folder, model, rows, num_rounds, found))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{point}: exit code {process.exitcode}")
    return dict(found.get())


def _in_child(point: Point, folder: Path, model: Path, rows: Path, num_rounds: int, found: Any) -> None:
    rounds = Rounds()
    options = {
        **{"data": "plain", "data.path": str(rows), "data.test_path": str(write_rows(folder, 5, 8))},
        **{"model": "hf", "model.path": str(model), "method.target_modules": "all", "partition.name": "iid"},
        **{"compute.accelerator": "cpu", "eval.every": 10**6, "eval.max_examples": 4, "analysis": []},
        **{"logging.wandb": "disabled", "run.dir": str(folder / f"run-{os.getpid()}"), "run.name": "run"},
        **words_of(point, num_rounds),
    }
    fedlit.run(options, callbacks=[rounds])
    # The first round has what is made once, and the last an evaluation.
    steps = [after - before for before, after in zip(rounds.cpu_s[1:-2], rounds.cpu_s[2:-1], strict=True)]
    found.put({"cpu_s": median(steps), "peak_mb": max(rounds.own_mb)})


def measure(base: Point, sweeps: Mapping[str, Sequence[int]], folder: Path, num_rounds: int) -> list[dict[str, Any]]:
    """Return a mapping for each point of each sweep: sweep, value, cpu_s, peak_mb and flops."""
    found = []
    for sweep, values in sweeps.items():
        for value in values:
            point = changed(base, sweep, value)
            used = measured(point, folder, num_rounds)
            print(f"{sweep:11}{value:6}  {used['cpu_s']:.3f} CPU s a round, {used['peak_mb']:.0f} MB", file=sys.stderr)
            found.append({"sweep": sweep, "value": value, **used, "flops": point.flops()})
    return found


def exponent(points: Sequence[Mapping[str, float]], key: str = "cpu_s") -> float:
    """Return b of cost = a * flops**b by least squares on logarithms; 1 where cost grows as the work, and of a sweep
    that does not change the work b of cost = a * value**b: 0 where nothing grows.
    """
    import math  # noqa: PLC0415  small

    same = len({point["flops"] for point in points}) == 1
    x = [math.log(point["value"] if same else point["flops"]) for point in points]
    y = [math.log(point[key]) for point in points]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return over / sum((a - mean_x) ** 2 for a in x)


def lines_of(points: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Return a line for each sweep: its exponent, and what grew to what."""
    lines = []
    for sweep in dict.fromkeys(point["sweep"] for point in points):
        own = [point for point in points if point["sweep"] == sweep]
        first, last = own[0], own[-1]
        lines.append(
            Line(
                what=f"exponent of CPU time over {'work' if first['flops'] != last['flops'] else sweep}, by {sweep}",
                value=exponent(own),
                unit="",
                target=1.0 if first["flops"] != last["flops"] else 0.05,
                note=f"{first['value']} to {last['value']}: {first['cpu_s']:.3f} to {last['cpu_s']:.3f} CPU s a round, "
                f"work x {last['flops'] / first['flops']:.1f}, {first['peak_mb']:.0f} to {last['peak_mb']:.0f} MB",
            )
        )
    return lines


def draw(content: Mapping[str, Any], path: Path) -> None:
    """Draw CPU seconds and memory of all sweeps, with the expected cost beside them."""
    import matplotlib  # noqa: PLC0415  for drawing alone

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  as above

    points, base = content["points"], content["base"]
    sweeps = list(dict.fromkeys(point["sweep"] for point in points))
    figure, axes = pyplot.subplots(2, len(sweeps), figsize=(3.1 * len(sweeps), 5.6), squeeze=False, sharey="row")
    per_flop = median(p["cpu_s"] / p["flops"] for p in points if p["value"] == base.get(p["sweep"]))
    for column, sweep in enumerate(sweeps):
        own = [point for point in points if point["sweep"] == sweep]
        values = [point["value"] for point in own]
        top, bottom = axes[0][column], axes[1][column]
        top.loglog(values, [p["cpu_s"] for p in own], "o-", color="#1f5fa8", label="measured")
        top.loglog(values, [per_flop * p["flops"] for p in own], "--", color="#c25a00", label="by the work")
        bottom.semilogx(values, [p["peak_mb"] for p in own], "o-", color="#1f5fa8")
        top.set_title(TITLES[sweep], fontsize=8)
        bottom.set_xlabel(sweep)
        bottom.set_ylim(0, 1.15 * max(point["peak_mb"] for point in points))
        for axis in (top, bottom):
            axis.set_xticks(values, [f"{value:,}" for value in values], fontsize=7)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("CPU seconds of a round")
    axes[1][0].set_ylabel("peak memory, MB")
    axes[0][0].legend(fontsize=8)
    facts = content["machine"]
    figure.suptitle(
        f"{facts['processor']}, one thread a process, {facts['date']}; base:\n8 clients, a step of 1 x 64 "
        "tokens, rank 8, hidden 128, 4 layers",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each federation, at least 4")
    parser.add_argument("--plot", type=Path, help="file for the plots, .svg or .png")
    parser.add_argument("--points", type=Path, help="file for the figures of the plots")
    parser.add_argument("--redraw", type=Path, help="a file of figures to draw, in place of measuring")
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.redraw is not None:
        draw(json.loads(arguments.redraw.read_text()), arguments.plot)
        return
    pin()
    sweeps = QUICK if arguments.quick else {name: SWEEPS[name] for name in arguments.sweeps}
    base = Point(hidden=64, layers=1, steps=1, batch=1, tokens=16) if arguments.quick else Point()
    with tempfile.TemporaryDirectory(prefix="fedlit-growth-") as folder:
        points = measure(base, sweeps, Path(folder), 4 if arguments.quick else arguments.rounds)
    content = {"machine": machine(), "base": asdict(base), "points": points}
    if arguments.points is not None:
        arguments.points.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.plot is not None:
        draw(content, arguments.plot)
    tell("growth", lines_of(points), arguments)


if __name__ == "__main__":
    main()
