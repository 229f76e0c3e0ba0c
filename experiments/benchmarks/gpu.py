"""What fedlit takes on one GPU: `python experiments/benchmarks/gpu.py --json gpu.json`.

Needs the installed package and one CUDA device, no files of models: TinyLlama-1.1B, Gemma-2B and Llama-3.1-8B have
random weights. Parts (`--only`):

    recipes  every recipe: seconds per round, tokens/s, model FLOP utilisation, peak memory, time of one aggregation
             and of one evaluation
    batch    several clients in one forward pass (local.clients_per_batch), tokens/s over one after the other
    bare     local steps over a bare PyTorch loop
    memory   FedFTG beside LoRA, batch 1 of 512 tokens in float32 and bfloat16

After every line the file is written. What does not fit into memory is a line that says so. A part begins no new run
when its minutes are over. `--device cpu --tiny` shows on any machine that the script runs.
"""

import argparse
import contextlib
import io
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from gpu_bare import compare
from gpu_models import MODELS, peak_flops
from gpu_runs import Figures, Setting, federation, figures_of, free
from lines import Line, add_arguments, tell
from paired_timing import Ratio

from fedlit.config import LocalConfig
from fedlit.errors import FedlitError
from fedlit.launch import quieten
from fedlit.process.interrupt import is_out_of_memory
from fedlit.recipes import RECIPES

MANY = (1, 4, 16)
"""Clients in one forward pass."""
TARGET_MANY = 4.0
PAPERS_GB = {"fedftg": 20.0, "fedit": 14.2}
"""Memory on an RTX A6000 that the FedFTG paper tells (arXiv 2410.23111), of LoRA methods in general the second."""


class Report:
    """Lines, told anew after each one, and the time that is left to a part."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.lines: list[Line] = []
        self._arguments = arguments
        self._ends_s = 0.0

    def begin(self, part: str) -> None:
        """Start the clock of a part."""
        print(f"{part}: at most {self._arguments.minutes:g} minutes", flush=True)
        self._ends_s = time.monotonic() + 60 * self._arguments.minutes

    def add(self, *lines: Line) -> None:
        """Take in lines, and write the file."""
        self.lines += lines
        for line in lines:
            print(f"{line.what}: {line.value:.4g} {line.unit} {line.note}", flush=True)
        with contextlib.redirect_stdout(io.StringIO()):  # the table is printed once, at the end
            tell("gpu", self.lines, self._arguments)

    def attempt(self, what: str, work: Callable[[], Sequence[Line]]) -> None:
        """Add what some work finds, or that it did not fit or was not begun any more."""
        if time.monotonic() > self._ends_s:
            self.add(_nothing(what, "not begun: the minutes of this part are over"))
            return
        try:
            lines = work()
        except Exception as error:
            if not is_out_of_memory(error) and not isinstance(error, FedlitError):
                raise
            reason = "out of memory" if is_out_of_memory(error) else str(error)
            lines = [_nothing(what, " ".join(f"{reason}".split())[:160])]
        free()  # outside of the handler, whose error holds the frames and their tensors
        self.add(*lines)


def _nothing(what: str, why: str) -> Line:
    return Line(what=what, value=float("nan"), unit="", note=why)


def recipe_lines(what: str, found: Figures, peak: float | None) -> list[Line]:
    """Return the lines of one recipe on one model."""
    lines = [
        Line(what=f"{what}: round", value=found.round_s, unit="s", note=f"{found.num_tokens:,} tokens, no evaluation"),
        Line(what=f"{what}: training", value=found.tokens_per_s, unit="tokens/s"),
        Line(what=f"{what}: aggregation", value=found.aggregate_s, unit="s"),
        Line(what=f"{what}: evaluation", value=found.evaluate_s, unit="s"),
    ]
    if (share := found.utilisation(peak)) is not None:
        lines.append(Line(what=f"{what}: model FLOP utilisation", value=100 * share, unit="%"))
    if found.peak_gib is not None:
        lines.append(Line(what=f"{what}: peak memory", value=found.peak_gib, unit="GiB"))
    return lines


def run_recipes(report: Report, arguments: argparse.Namespace, setting: Setting, peak: float | None) -> None:
    """Run every recipe on every model."""
    for model in arguments.models:
        for method in arguments.recipes:
            what = f"{model}, {method}"

            def work(model: str = model, method: str = method, what: str = what) -> list[Line]:
                return recipe_lines(what, figures_of(model, setting, f"method={method}"), peak)

            report.attempt(what, work)


def run_many(report: Report, arguments: argparse.Namespace, setting: Setting) -> None:
    """Run 16 clients with several of them in one forward pass, rounds of all variants in turn."""
    if "clients_per_batch" not in LocalConfig.__dataclass_fields__:
        report.add(_nothing("many clients in one forward pass", "this version has no local.clients_per_batch"))
        return
    many = replace(setting, clients=max(MANY), batch_size=1, num_tokens=32 if setting.tiny else 128, steps=4)
    for model in arguments.models:
        report.attempt(f"{model}, many clients in one forward pass", lambda model=model: _many(model, many, arguments))


def _many(model: str, setting: Setting, arguments: argparse.Namespace) -> list[Line]:
    """Return tokens/s with k clients in one forward pass over those of one client after the other."""
    pairs = 1 if arguments.quick else 6
    turns, order = pairs + 1, random.Random(0)
    quick = [
        "method=fedit",
        f"num_rounds={turns}",
        f"eval.every={turns}",
        "eval.max_examples=1",
        "eval.max_new_tokens=1",
    ]
    seconds: dict[int, list[float]] = {k: [] for k in MANY}
    with contextlib.ExitStack() as stack:
        built = {
            k: stack.enter_context(federation(model, setting, *quick, f"local.clients_per_batch={k}")) for k in MANY
        }
        for turn in range(turns):
            for k in order.sample(MANY, len(MANY)):
                built[k].config.num_rounds = turn + 1
                built[k].run()
                record = built[k].folder.records()[-1]
                seconds[k] += [record["time/train_s"]] if turn else []
    num_tokens = record["clients/num_tokens"]
    target = TARGET_MANY if model == "tinyllama" and setting.device == "cuda" else None
    lines = []
    for k in MANY[1:]:
        ratio = Ratio.of(seconds[1], seconds[k])
        lines.append(
            Line(
                what=f"{model}: {k} clients in one forward pass, tokens/s over one after the other",
                value=ratio.median,
                interval=ratio.interval,
                target=target if k == max(MANY) else None,
                better="at least",
                note=f"batch 1 x {setting.num_tokens}; {num_tokens / min(seconds[k]):,.0f} tokens/s at best",
            )
        )
    return lines


def run_bare(report: Report, arguments: argparse.Namespace, setting: Setting) -> None:
    """Compare local steps with a bare loop."""
    pairs = 2 if arguments.quick else 20
    for model in arguments.models:
        for batch_size in (1, setting.batch_size):
            what = f"{model}, batch {batch_size} x {setting.num_tokens}: throughput over a bare loop"

            def work(model: str = model, batch_size: int = batch_size, what: str = what) -> list[Line]:
                return [compare(what, model, replace(setting, batch_size=batch_size, clients=1), pairs)]

            report.attempt(what, work)


def run_memory(report: Report, arguments: argparse.Namespace, setting: Setting) -> None:
    """Measure the peak memory of FedFTG and of LoRA as the FedFTG paper trains: batch 1, texts of 512 tokens."""
    long = replace(setting, batch_size=1, num_tokens=64 if setting.tiny else 512, clients=3, steps=2, rounds=1)
    types = {"float32": ["model.dtype=float32", "compute.precision=32-true"], "bfloat16": []}
    for model in arguments.models:
        for name, words in types.items():
            for method, paper in PAPERS_GB.items():
                what = f"{model}, {method}, {name}: peak memory of training, 1 x {long.num_tokens}"

                def work(
                    model: str = model,
                    method: str = method,
                    words: Sequence[str] = words,
                    what: str = what,
                    paper: float = paper,
                ) -> list[Line]:
                    found = figures_of(
                        model, long, f"method={method}", "eval.max_examples=1", "eval.max_new_tokens=1", *words
                    )
                    if found.peak_gib is None:
                        return [_nothing(what, "counted on a GPU alone")]
                    note = f"the paper: {paper:g} GB on an RTX A6000, model and length not told"
                    return [Line(what=what, value=found.peak_gib, unit="GiB", note=note)]

                report.attempt(what, work)


PARTS: dict[str, Any] = {"recipes": None, "batch": run_many, "bare": run_bare, "memory": run_memory}


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts; all by default")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="all by default")
    parser.add_argument("--recipes", nargs="+", choices=sorted(RECIPES), default=sorted(RECIPES), help="all by default")
    parser.add_argument("--minutes", type=float, default=30, help="a part begins no new run after so many (30)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script")
    parser.add_argument("--tiny", action="store_true", help="two small layers in place of each model's own")
    parser.add_argument("--peak-tflops", type=float, help="of a card that the table lacks: dense bfloat16")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Measure; return 0 unless a target was missed."""
    arguments = parse_arguments(words)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: torch sees no CUDA device; give --device cpu --tiny to try the script", file=sys.stderr)
        return 2
    quieten()
    card = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    peak = peak_flops(card, arguments.peak_tflops)
    if arguments.quick:
        arguments.models, arguments.recipes = arguments.models[:1], arguments.recipes[:2]
    small = {"num_tokens": 32, "steps": 1, "batch_size": 2, "clients": 2} if arguments.tiny else {}
    setting = replace(
        Setting(device=arguments.device, tiny=arguments.tiny), **small, rounds=1 if arguments.quick else 3
    )
    report = Report(arguments)
    if peak is None:
        report.add(_nothing("model FLOP utilisation", f"the peak of {card} is not known; give --peak-tflops"))
    for part in arguments.only:
        report.begin(part)
        if part == "recipes":
            run_recipes(report, arguments, setting, peak)
        else:
            PARTS[part](report, arguments, setting)
    tell("gpu", report.lines, arguments)
    return int(any(line.verdict == "missed" for line in report.lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
