"""Exact discrete Gaussian noise against NumPy's normal floats: `python experiments/benchmarks/noise.py`.

For several standard deviations the time of `discrete_gaussian.sample` over that of `Generator.normal` for as many
numbers, both from PCG64, one thread. Then what the noise of a round takes, and what two threads gain.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin

from fedlit.privacy import discrete_gaussian
from fedlit.privacy.discrete_gaussian import sample

PIECE = 2**16
"""Numbers of one stream, as a round draws them."""
TARGET_NS = 60.0
SIGMAS = {"10": 10, "2^20": 2**20, "2^44": 2**44, "2^55": 2**55}


def timed(work: Callable[[], object], repeats: int) -> Callable[[], Elapsed]:
    """Return a function that does the work so often and returns its time."""

    def block() -> Elapsed:
        watch = Stopwatch()
        for _ in range(repeats):
            work()
        return watch.elapsed()

    return block


def sigma_line(name: str, sigma: int, options: argparse.Namespace) -> Line:
    """Return the cost of one standard deviation."""
    generator = np.random.Generator(np.random.PCG64(0))
    variants = {
        "normal": lambda: generator.normal(0.0, sigma, PIECE),
        "normal again": lambda: generator.normal(0.0, sigma, PIECE),
        "discrete": lambda: sample(sigma, PIECE, generator),
    }
    blocks = {side: timed(work, options.repeats) for side, work in variants.items()}
    interleave(blocks, 1, seed=1)
    found = interleave(blocks, options.pairs, seed=0)
    cpu_s = {side: [one.cpu_s for one in timings] for side, timings in found.items()}
    each_ns = {side: 1e9 * median(values) / options.repeats / PIECE for side, values in cpu_s.items()}
    ratio = Ratio.of(cpu_s["discrete"], cpu_s["normal"])
    return Line(
        what=f"discrete Gaussian, sigma {name}: over normal floats",
        value=ratio.median,
        interval=ratio.interval,
        null=Ratio.of(cpu_s["normal again"], cpu_s["normal"]).median,
        target=TARGET_NS / each_ns["normal"],
        note=f"CPU ns a number: {each_ns['discrete']:.1f}, normal {each_ns['normal']:.1f}; "
        f"the target is {TARGET_NS:.0f} ns",
    )


def round_of_noise(num_pieces: int, num_threads: int) -> Elapsed:
    """Draw the noise of a round piece by piece, a stream for each, and return the time."""

    def draw(piece: int) -> None:
        sample(2**44, PIECE, np.random.Generator(np.random.PCG64(piece)))

    watch = Stopwatch()
    if num_threads == 1:
        for piece in range(num_pieces):
            draw(piece)
    else:
        with ThreadPoolExecutor(num_threads) as threads:
            list(threads.map(draw, range(num_pieces)))
    return watch.elapsed()


def round_lines(options: argparse.Namespace) -> list[Line]:
    """Return the time of a round's noise, and what a second thread gains of it on the clock."""
    blocks = {
        "one": lambda: round_of_noise(options.pieces, 1),
        "one again": lambda: round_of_noise(options.pieces, 1),
        "two": lambda: round_of_noise(options.pieces, 2),
    }
    found = interleave(blocks, options.pairs, seed=2)
    walls = {side: [one.wall_s for one in timings] for side, timings in found.items()}
    ratio = Ratio.of(walls["one"], walls["two"])
    num = options.pieces * PIECE
    seconds = median([one.cpu_s for one in found["one"]])
    gain = Line(
        what="noise on two threads: speed over one, on the clock",
        value=ratio.median,
        interval=ratio.interval,
        note=f"{num:,} numbers; null {Ratio.of(walls['one again'], walls['one']).median:.3f}; means little under load",
    )
    each = Line(
        what="noise of a round, in pieces of 2^16 with a stream each",
        value=1e9 * seconds / num,
        unit="ns a number",
        target=TARGET_NS,
        note=f"{num:,} numbers in {seconds:.2f} s of one core",
    )
    return [each, gain]


def table_line() -> Line:
    """Return the time of making the table of one standard deviation, which is kept for the next rounds."""
    seconds = []
    for sigma in range(2**44, 2**44 + 20):
        start = time.process_time()
        discrete_gaussian._table(sigma)
        seconds.append(time.process_time() - start)
    return Line(what="table of a new sigma", value=1e3 * median(seconds), unit="ms", note="once for each sigma")


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return 0 if every target was met, else 1."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, help="timings of each side; by default 30")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    options.pairs = options.pairs or (6 if options.quick else 30)
    options.repeats, options.pieces = (1, 4) if options.quick else (8, 64)
    lines = [sigma_line(name, sigma, options) for name, sigma in SIGMAS.items()]
    lines += [*round_lines(options), table_line()]
    tell("noise", lines, options)
    return 0 if all(line.verdict in {"met", ""} for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
