"""What an evaluation that generates costs: rows that leave their batch, batches, and a second process.

    python experiments/benchmarks/evaluation.py
    python experiments/benchmarks/evaluation.py --model FOLDER --rows medquad.jsonl.gz --json evaluation.json

Questions and answers of MedQuAD where a file of them is given or lies in shared/ beside the repository, else of this
Python's docstrings. The model is the packaged one unless a folder is given. Greedy decoding, 64 new tokens, batches of
16. Four comparisons, each on the same rows by turns in random order:

- `CausalLM.evaluate` (loss, texts, scores) against the same with transformers' `generate` on whole batches;
- the same where an answer ends at its first full stop, so that rows end at different places;
- sorted batches against batches of one row;
- an evaluation by two processes against one. The CPU time of the busier process counts, since on a machine with other
  work the wall clock does not; it is told beside it.

The scores of both sides must be the same bits, or the benchmark stops; so must the texts, but for batches of one row,
where the last bit of a product may choose between two tokens that are equally likely: such rows are counted.
"""

import argparse
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin
from torch import distributed, multiprocessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedlit.config import DataConfig, EvalConfig
from fedlit.data import pydoc
from fedlit.data.collation import Example
from fedlit.models import PACKAGED
from fedlit.round.evaluation import Evaluator
from fedlit.seeding import numpy_generator
from fedlit.tasks import generation
from fedlit.tasks.causal_lm.task import CausalLM

CPU = torch.device("cpu")
MEDQUAD = Path(__file__).resolve().parents[2] / "shared/data/medquad/medquad.jsonl.gz"
TEMPLATE = "### Question:\n{question}\n\n### Answer:\n"
TARGETS = {"leaving": 1.5, "batches": 4.0, "processes": 1.8}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is evaluated; it travels to the processes. rows: of the set. turns: timings of every side."""

    model: str
    file: Path | None
    num_rows: int
    turns: int
    new_tokens: int = 64
    batch_size: int = 16
    stop: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return questions with answers, the same ones every time."""
        if self.file is None:
            found = [{"question": row["prompt"], "answer": row["response"]} for row in pydoc.read_rows()]
        else:
            with gzip.open(self.file, "rt", encoding="utf-8") as lines:
                found = [json.loads(line) for line in lines]
        chosen = numpy_generator(0, "benchmark").choice(len(found), size=self.num_rows, replace=False)
        return [found[place] for place in chosen]

    def load(self) -> tuple[Any, CausalLM]:
        """Return the model and its task."""
        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(self.model).eval()
        task = CausalLM(
            tokenizer=AutoTokenizer.from_pretrained(self.model),
            data=DataConfig(template=TEMPLATE, required=["question"], response="answer"),
            eval=EvalConfig(max_new_tokens=self.new_tokens, stop=list(self.stop)),
            max_length_tokens=min(256, model.config.max_position_embeddings),
            loss_on="response",
            max_positions=model.config.max_position_embeddings,
        )
        return model, task

    def batches(self, task: CausalLM, batch_size: int | None = None) -> list[list[Example]]:
        """Return the set as an evaluation has it."""
        return task.evaluation_batches(task.evaluation_examples(self.rows()), batch_size or self.batch_size)


@contextmanager
def whole_batches() -> Iterator[None]:
    """Decode as before: transformers' `generate`, with a stopping criterion for stop texts."""
    own = generation.decodes_alone
    generation.decodes_alone = lambda _model: False
    try:
        yield
    finally:
        generation.decodes_alone = own


class Side:
    """One way to do the work: `answers` are what it gave, the same every time."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.answers: Any = None

    def __call__(self) -> Elapsed:
        """Do the work once."""
        watch = Stopwatch()
        answers = self._work()
        elapsed = watch.elapsed()
        if self.answers is not None and answers != self.answers:
            raise SystemExit("the same work gave other answers the second time")
        self.answers = answers
        return elapsed


def evaluated(model: Any, task: CausalLM, batches: Sequence[Sequence[Example]]) -> tuple[dict[str, Any], list[str]]:
    """Return the scores of a set, and what the model said."""
    metrics = task.metrics()
    samples = [sample for batch in batches for sample in task.evaluate(model, batch, metrics, CPU)]
    scores = {name: torch.as_tensor(metric.compute()).tolist() for name, metric in metrics.items()}
    return scores, [sample.prediction for sample in samples]


def timed(variants: Mapping[str, Callable[[], Elapsed]], turns: int) -> tuple[Ratio, Ratio, dict[str, list[Elapsed]]]:
    """Return before's CPU time over after's, before's over before's, and all times; one round of warming up before."""
    for variant in variants.values():
        variant()
    times = interleave(variants, turns, seed=0)
    before, again, after = ([each.cpu_s for each in times[name]] for name in ("before", "again", "after"))
    return Ratio.of(before, after), Ratio.of(before, again), times


def of_leaving(what: str, setting: Setting, target: float | None) -> list[Line]:
    """Return the lines on an evaluation whose rows leave their batches, against one on whole batches."""
    model, task = setting.load()
    batches = setting.batches(task)
    sizes: list[int] = []
    handle = model.register_forward_hook(lambda _module, _given, output: sizes.append(len(output.logits)))
    texts, row_steps = [], []
    for way in (whole_batches, torch.no_grad):
        sizes.clear()
        with way():
            texts.append([task.responses(model, batch, CPU) for batch in batches])
        row_steps.append(sum(sizes))
    handle.remove()
    if texts[0] != texts[1]:
        raise SystemExit("rows that leave their batch say something else")

    def before() -> Any:
        with whole_batches():
            return evaluated(model, task, batches)

    sides = {"before": Side(before), "again": Side(before), "after": Side(lambda: evaluated(model, task, batches))}
    ratio, null, times = timed(sides, setting.turns)
    if sides["before"].answers != sides["after"].answers:
        raise SystemExit("the scores differ")
    seconds = {name: median([each.cpu_s for each in elapsed]) for name, elapsed in times.items()}
    note = f"{setting.num_rows} rows, {seconds['before']:.2f} and {seconds['after']:.2f} CPU s, same scores and texts"
    steps = f"{row_steps[0]:,} over {row_steps[1]:,}"
    return [
        Line(what=f"{what}, rows leave", value=ratio.median, interval=ratio.interval, null=null.median,
             target=target, better="at least", note=note),
        Line(what=f"{what}, rows in all forward passes", value=row_steps[0] / row_steps[1], note=steps),
    ]  # fmt: skip


def of_batches(setting: Setting) -> Line:
    """Return the line on sorted batches against batches of one row: new tokens in a second."""
    model, task = setting.load()
    sorted_batches, single = setting.batches(task), setting.batches(task, 1)

    def respond(batches: Sequence[Sequence[Example]]) -> list[str]:
        return [text for batch in batches for text in task.responses(model, batch, CPU)]

    sides = {
        "before": Side(lambda: respond(single)),
        "again": Side(lambda: respond(single)),
        "after": Side(lambda: respond(sorted_batches)),
    }
    ratio, null, _ = timed(sides, setting.turns)
    pairs = zip(sides["before"].answers, sides["after"].answers, strict=True)
    differing = sum(one != other for one, other in pairs)
    return Line(
        what=f"new tokens/s, sorted batches of {setting.batch_size} over batches of 1",
        value=ratio.median,
        interval=ratio.interval,
        null=null.median,
        target=TARGETS["batches"],
        better="at least",
        note=f"{setting.num_rows} rows, {differing} of them say something else",
    )


def work(setting: Setting, rank: int, size: int, meeting: str, orders: Any) -> None:
    """Evaluate in one of `size` processes whenever something comes from `orders`, until None does."""
    model, task = setting.load()
    if size > 1:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    evaluator = Evaluator(
        fabric=Fabric(accelerator="cpu", devices=1), model=model, task=task, batches=setting.batches(task)
    )
    evaluator.together()
    orders.send(None)
    while orders.recv() is not None:
        if size > 1:
            distributed.barrier()
        watch = Stopwatch()
        scores, _ = evaluator.together()
        orders.send((watch.elapsed(), scores))
    if size > 1:
        distributed.destroy_process_group()


class Group:
    """Processes that evaluate together; `scores` are theirs."""

    def __init__(self, setting: Setting, size: int, folder: str, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends, self._processes = [], []
        for rank in range(size):
            mine, theirs = context.Pipe()
            given = (setting, rank, size, f"{folder}/{name}", theirs)
            self._processes.append(context.Process(target=work, args=given))
            self._processes[-1].start()
            self._ends.append(mine)
        self.scores: Any = None

    def wait(self) -> None:
        """Wait until all are ready."""
        for end in self._ends:
            end.recv()

    def __call__(self) -> Elapsed:
        """Evaluate once; the times are those of the busier process."""
        for end in self._ends:
            end.send(True)
        answers = [end.recv() for end in self._ends]
        self.scores = answers[0][1]
        if any(scores != self.scores for _, scores in answers):
            raise SystemExit("two processes have two results")
        times = [elapsed for elapsed, _ in answers]
        return Elapsed(cpu_s=max(each.cpu_s for each in times), wall_s=max(each.wall_s for each in times))

    def end(self) -> None:
        """Let them go."""
        for end, process in zip(self._ends, self._processes, strict=True):
            end.send(None)
            process.join()


def of_processes(setting: Setting) -> Line:
    """Return the line on two processes against one."""
    with tempfile.TemporaryDirectory() as folder:
        groups = {name: Group(setting, size, folder, name) for name, size in (("one", 1), ("two", 2))}
        for group in groups.values():
            group.wait()
        one, two = groups["one"], groups["two"]
        ratio, null, times = timed({"before": one, "again": one, "after": two}, setting.turns)
        for group in groups.values():
            group.end()
    if one.scores != two.scores:
        raise SystemExit("two processes have other scores than one")
    wall = Ratio.of([each.wall_s for each in times["before"]], [each.wall_s for each in times["after"]])
    return Line(
        what="evaluation, two processes over one (CPU time of the busier)",
        value=ratio.median,
        interval=ratio.interval,
        null=null.median,
        target=TARGETS["processes"],
        better="at least",
        note=f"{setting.num_rows} rows, same scores; by the wall clock {wall}",
    )


def lines(arguments: argparse.Namespace) -> list[Line]:
    """Return what was measured."""
    file = arguments.rows or (MEDQUAD if MEDQUAD.exists() else None)
    name = "MedQuAD" if file is not None else "docstrings"
    turns, new_tokens, batch_size = (2, 6, 4) if arguments.quick else (8, 64, 16)

    def setting(num_rows: int, **more: Any) -> Setting:
        return Setting(
            model=arguments.model,
            file=file,
            num_rows=num_rows,
            turns=turns,
            new_tokens=new_tokens,
            batch_size=batch_size,
            **more,
        )

    return [
        *of_leaving(f"{name}, {new_tokens} new tokens", setting(2 * batch_size), TARGETS["leaving"]),
        *of_leaving(f"{name}, first sentence", setting(2 * batch_size, stop=(".",)), None),
        of_batches(setting(batch_size)),
        of_processes(setting(4 * batch_size)),
    ]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(PACKAGED["tiny"]), help="folder of a causal language model")
    parser.add_argument("--rows", type=Path, help="JSON lines, gzipped, with the keys question and answer")
    add_arguments(parser)
    arguments = parser.parse_args()
    pin()
    tell("evaluation.py", lines(arguments), arguments)


if __name__ == "__main__":
    main()
