"""Aggregation from factors against dense matrices: `python experiments/benchmarks/aggregation.py`.

FlexLoRA, FedEx-LoRA, FLoRA and FedSVD on single layers of TinyLlama's and Gemma-2B's shapes. On one side fedlit's rule,
on the other the dense product and its SVD, or the dense residual, by plain PyTorch in float32.
"""

import argparse
import gc
import math
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from factor_sides import RULES, Case, Sizes
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin

SHAPES = ((2048, 2048), (256, 2048), (5632, 2048), (16384, 2048))
"""(out, in): q of both models, k and v of both, and their up projections."""
CLIENTS = (3, 10, 100)
RANK = 8
BLOCK_S = 0.02
"""Least time of a block: fast work is repeated in it."""
SVD_PAIRS_SCALARS = 2**22
"""A dense SVD of no more scalars than this is timed often enough for an interval, a larger one once."""
HAS_SVD = ("FlexLoRA", "FedSVD")


def timed(work: Callable[[], object]) -> Callable[[], Elapsed]:
    """Return a function that does the work for at least BLOCK_S and returns the time of once."""
    watch = Stopwatch()
    work()
    times = max(1, math.ceil(BLOCK_S / max(watch.elapsed().cpu_s, 1e-6)))

    def block() -> Elapsed:
        block_watch = Stopwatch()
        for _ in range(times):
            work()
        spent = block_watch.elapsed()
        return Elapsed(cpu_s=spent.cpu_s / times, wall_s=spent.wall_s / times)

    return block


def target_of(name: str, shape: tuple[int, int], num_clients: int) -> float | None:
    """Return how many times faster than the dense way the rule is to be."""
    if num_clients == CLIENTS[-1]:
        return 1.0
    if shape == SHAPES[0]:
        return {"FlexLoRA": 500.0, "FedEx-LoRA": 10.0}.get(name)
    return None


def num_pairs(name: str, shape: tuple[int, int], num_clients: int) -> int:
    """Return pairs of timings: 6 make an interval, which a large SVD is too slow for."""
    if name not in HAS_SVD:
        return 7
    if shape[0] * shape[1] > SVD_PAIRS_SCALARS:
        return 1
    few = shape == SHAPES[0] and (num_clients == CLIENTS[-1] or name == "FedSVD")
    return 2 if few else 6


def measure(name: str, case: Case, num_clients: int, pairs: int, *, later: bool = False) -> Line:
    """Return how many times faster a rule is on a layer than the dense way."""
    own, dense = (lambda: case.factors(name)), case.dense(name)
    variants = {"factors": timed(own), "again": timed(own), "dense": _once(dense) if pairs < 7 else timed(dense)}
    if name == "FedEx-LoRA":
        variants["one product"] = timed(case.add_in_one_product)
    seconds = {
        variant: [one.cpu_s for one in blocks] for variant, blocks in interleave(variants, pairs, seed=0).items()
    }
    ratio = Ratio.of(seconds["dense"], seconds["factors"])
    with Sizes(case.shape) as own_sizes:
        case.factors(name)
    note = f"{_ms(seconds['factors'])} against {_ms(seconds['dense'])}"
    if name == "FedEx-LoRA":
        note += f"; {Ratio.of(seconds['one product'], seconds['factors']).median:.2g} over one product straight into W"
    note += f"; largest tensor {own_sizes.largest / math.prod(case.shape):.2g} of W, {own_sizes.num_dense} of W's shape"
    goal = target_of(name, case.shape, num_clients)
    if later and goal is not None:
        note += "; the sum of rounds is held dense, and added to in float64"
    return Line(
        what=f"{name}, {case.shape[0]} x {case.shape[1]}, N = {num_clients}{', a later round' if later else ''}",
        value=ratio.median,
        interval=ratio.interval,
        null=Ratio.of(seconds["again"], seconds["factors"]).median if pairs > 2 else None,
        target=goal,
        better="at least",
        note=note,
    )


def error_line(name: str, case: Case, num_clients: int) -> Line:
    """Return a rule's error over that of the dense way, both against float64."""
    own, dense = case.errors(name)
    return Line(
        what=f"{name}, {case.shape[0]} x {case.shape[1]}, N = {num_clients}: error over the dense way's",
        value=own / dense,
        target=1.0,
        note=f"{own:.1e} and {dense:.1e} from float64",
    )


def all_lines(shapes: Sequence[tuple[int, int]], clients: Sequence[int], rank: int) -> Iterator[Line]:
    """Yield all lines; a rule whose dense way depends on the mean alone, FedSVD, once for each shape."""
    for name in RULES:
        for shape in shapes:
            for num_clients in clients if name != "FedSVD" else clients[-1:]:
                yield measure(name, Case(shape, num_clients, rank), num_clients, num_pairs(name, shape, num_clients))
                gc.collect()
    for name in ("FedEx-LoRA", "FLoRA"):
        for shape in shapes[:2]:
            yield measure(name, Case(shape, clients[-1], rank, held=True), clients[-1], 7, later=True)
    for name in RULES:
        for num_clients in clients:
            yield error_line(name, Case(shapes[1], num_clients, rank), num_clients)


def _once(work: Callable[[], object]) -> Callable[[], Elapsed]:
    """Return a function that does slow work once and returns its time."""

    def block() -> Elapsed:
        watch = Stopwatch()
        work()
        return watch.elapsed()

    return block


def _ms(seconds: Sequence[float]) -> str:
    return f"{1e3 * median(seconds):.3g} ms"


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return 0."""
    pin()
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="N")
    parser.add_argument("--rank", type=int, default=RANK, help="LoRA rank of every client")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shapes = ((96, 96), (40, 96)) if options.quick else SHAPES
    clients = (2, 20) if options.quick else tuple(options.clients)
    tell("aggregation", list(all_lines(shapes, clients, 3 if options.quick else options.rank)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
