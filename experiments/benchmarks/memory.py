"""Memory of whole runs: `python experiments/benchmarks/memory.py`.

Peak proportional set size (what processes share is divided among them), summed over the processes of a run, sampled ten
times a second from /proc. Each run is a process tree of its own: `fedlit run` with LoRA, all clients in each round, or
the bare two-process loop (`bare_loop.py`) on the same model, rows and shapes. Both sides are taken in turn, and the
median of the runs counts. The null control is one client against one client.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from lines import Line, add_arguments, tell
from paired_timing import median_interval
from real_runs import HERE, Shape, environment, run, watched, write_rows

TARGET_CLIENTS, TARGET_PROCESSES = 1.10, 1.05


def ratio(peaks: Mapping[str, Sequence[float]], over: str, under: str) -> tuple[float, tuple[float, float] | None]:
    """Return the median of the turns' ratios of two cases' peaks and its interval, where there are turns enough."""
    ratios = [one / other for one, other in zip(peaks[over], peaks[under], strict=True)]
    return median(ratios), median_interval(ratios)


def lines_of(peaks: Mapping[str, Sequence[float]], *, sizes: str, many: int, most: int) -> list[Line]:
    """Return the lines of the peaks, megabytes by case, of each turn."""
    null = ratio(peaks, "1 client", "1 client again")[0]
    told = {name: f"{median(values):.0f} MB" for name, values in peaks.items()}

    def line(over: str, under: str, target: float | None, note: str = "") -> Line:
        value, interval = ratio(peaks, over, under)
        absolute = f"{told[over]} over {told[under]}; {sizes}"
        return Line(
            what=f"peak memory, {over} over {under}",
            value=value,
            interval=interval,
            null=null,
            target=target,
            note="; ".join(filter(None, (absolute, note))),
        )

    return [
        line(f"{many} clients", "1 client", TARGET_CLIENTS),
        line(f"{most} clients", f"{many} clients", TARGET_CLIENTS),
        line("two processes", "bare two-process loop", TARGET_PROCESSES),
        line(f"{many} clients with private factors", f"{many} clients", None, "fedsa_lora: each keeps its own B"),
    ]


def measure(folder: Path, *, quick: bool, repeats: int, seed: int) -> list[Line]:
    """Run every case in turn and return the lines."""
    shape = Shape(hidden=64, layers=2) if quick else Shape(hidden=512, layers=8)
    many, most = (2, 4) if quick else (16, 256)
    steps, batch, tokens = (1, 1, 16) if quick else (1, 1, 64)
    model, rows = shape.save(folder), write_rows(folder, 16 * most)
    common = [
        *("num_rounds=1", f"local.steps={steps}", f"local.batch_size={batch}", f"model.max_length_tokens={tokens}"),
        "local.loss_on=all",
    ]
    number = iter(range(10**6))

    def of_run(num_clients: int, *words: str) -> Callable[[], float]:
        def peak() -> float:
            place = folder / f"run-{next(number)}"
            return run([f"num_clients={num_clients}", *common, *words], model, rows, place).peak_mb

        return peak

    def bare() -> float:
        place = folder / f"run-{next(number)}"
        place.mkdir()
        sizes = map(str, (1, steps * 2, batch, tokens))
        return watched(
            [sys.executable, str(HERE.parent / "bare_loop.py"), str(model), str(rows), *sizes], environment(), place
        )[0]

    cases = {
        "1 client": of_run(1, "method=fedit"),
        "1 client again": of_run(1, "method=fedit"),
        f"{many} clients": of_run(many, "method=fedit"),
        f"{most} clients": of_run(most, "method=fedit"),
        f"{many} clients with private factors": of_run(many, "method=fedsa_lora"),
        "two processes": of_run(4, "method=fedit", "compute.devices=2"),
        "bare two-process loop": bare,
    }
    order = random.Random(seed)
    peaks: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name in order.sample(list(cases), len(cases)):
            peaks[name].append(cases[name]())
    sizes = (
        f"Llama of {shape.num_parameters() / 1e6:.1f} M parameters in float32, LoRA of rank 8 "
        f"({shape.lora_parameters(8) / 1e6:.2f} M), {steps} steps of {batch} x {tokens} tokens a client, "
        f"{16 * most} rows"
    )
    return lines_of(peaks, sizes=sizes, many=many, most=most)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2, help="runs of each case; 6 give an interval")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the runs")
    add_arguments(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedlit-memory-") as folder:
        repeats = 1 if arguments.quick else arguments.repeats
        found = measure(Path(folder), quick=arguments.quick, repeats=repeats, seed=arguments.seed)
    tell("memory", found, arguments)


if __name__ == "__main__":
    main()
