"""Federations on random models, run round after round, and what of their records a benchmark tells."""

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gpu_models import RandomBackbone, architecture, work_of
from paired_timing import median

from fedlit.assembly import assemble
from fedlit.config import load_config
from fedlit.inputs import Inputs
from fedlit.partition.shards import draw_seed, make_shards
from fedlit.planning import make_plan
from fedlit.process import communication
from fedlit.round.loop import Federation

LABELLED_SHARE = 0.3
"""part of a row that is response"""
_WORDS = ("open", "read", "sort", "merge", "split", "join", "copy", "send", "parse", "close")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how large: the same for all runs of one call of the benchmark."""

    device: str
    tiny: bool
    num_tokens: int = 128
    clients: int = 4
    steps: int = 8
    batch_size: int = 4
    rounds: int = 3

    def words(self) -> list[str]:
        """Return the configuration that every run begins with."""
        return [
            f"compute.accelerator={self.device}",
            "model.tokenizer=tiny",
            "model.dtype=bfloat16",
            "compute.precision=bf16-mixed",
            f"model.max_length_tokens={self.num_tokens}",
            f"num_clients={self.clients}",
            f"num_rounds={self.rounds}",
            f"local.steps={self.steps}",
            f"local.batch_size={self.batch_size}",
            "partition.name=iid",
            "partition.min_test_rows=4",
            f"eval.every={self.rounds}",
            f"eval.max_examples={4 if self.tiny else 32}",
            "eval.batch_size=32",
            f"eval.max_new_tokens={2 if self.tiny else 32}",
            "analysis=[]",
            "logging.wandb=disabled",
        ]


def rows_of(num_tokens: int, num_clients: int) -> list[dict[str, str]]:
    """Return rows of at least `num_tokens` tokens: each is cut to exactly as many, and nothing is padding."""
    draw = random.Random(0)

    def text(num_words: int) -> str:
        return " ".join(draw.choice(_WORDS) for _ in range(num_words))

    num_response = max(1, round(LABELLED_SHARE * num_tokens / 2))  # a word of these has two tokens at most
    return [
        {"prompt": text(2 * num_tokens), "response": text(num_response), "label": str(row % 4)}
        for row in range(24 * num_clients)
    ]


class NoCheckpoints:
    """In place of a federation's checkpoints: those of a whole model of 8 billion parameters would fill the disk."""

    saved_round: int | None = None

    def awaited(self) -> AbstractContextManager[None]:
        """Return a block in which nothing is written."""
        return nullcontext()

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_given, **_named: None


@contextmanager
def federation(model: str, setting: Setting, *arguments: str) -> Iterator[Federation]:
    """Yield a federation on a random model, ready to run; nothing of it is left afterwards."""
    given = {argument.partition("=")[0] for argument in arguments}
    defaults = [word for word in setting.words() if word.partition("=")[0] not in given]
    with TemporaryDirectory() as folder:
        config = load_config([*defaults, *arguments, f"run.dir={folder}", "run.name=run", f"model.name={model}"])
        rows = rows_of(config.model.max_length_tokens, config.num_clients)
        shards = make_shards(rows, config.data, config.partition, config.num_clients, draw_seed(config))
        backbone = RandomBackbone(
            architecture=architecture(model, tiny=setting.tiny), device=torch.device(setting.device)
        )
        plan = make_plan(Inputs(config=config, rows=rows, shards=shards), backbone.load)
        try:
            built, _ = assemble(plan, communication.launch(config.compute))
            built.folder.path.mkdir(parents=True, exist_ok=True)
            built.checkpoints = NoCheckpoints()  # type: ignore[assignment]
            yield built
        finally:
            communication.shutdown()
            built = plan = None  # type: ignore[assignment]
            free()


def free() -> None:
    """Give back what nobody holds, on the device too, and begin to count its peak anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float | None:
    """Return the largest memory of tensors on the device since `free`, GiB; None on the CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of the rounds after the first, which warms up: medians. Seconds; tokens and operations of one round."""

    train_s: float
    aggregate_s: float
    evaluate_s: float
    num_tokens: int
    flops: float
    peak_gib: float | None

    @property
    def round_s(self) -> float:
        """Training and aggregation."""
        return self.train_s + self.aggregate_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens of local training, without aggregation."""
        return self.num_tokens / self.train_s

    def utilisation(self, peak: float | None) -> float | None:
        """Return the share of the device's operations that training needed; None where these are not known."""
        return None if peak is None else self.flops / self.train_s / peak


def figures_of(model: str, setting: Setting, *arguments: str) -> Figures:
    """Run a federation and return what its records tell."""
    with federation(model, setting, *arguments) as built:
        built.run()
        return figures(built, built.folder.records())


def figures(built: Federation, records: Sequence[dict[str, Any]]) -> Figures:
    """Return the figures of a federation's records; of a single round those of the first."""
    rounds = records[2:] or records[1:]
    last = records[-1]
    num_tokens = last["clients/num_tokens"]
    work = work_of(built.host.model, built.config.model.max_length_tokens)
    return Figures(
        train_s=median([record["time/train_s"] for record in rounds]),
        aggregate_s=median([record["time/aggregate_s"] for record in rounds]),
        evaluate_s=last["time/evaluate_s"],
        num_tokens=num_tokens,
        flops=work.flops(num_tokens, round(num_tokens * labelled_share(built))),
        peak_gib=peak_gib(),
    )


def labelled_share(built: Federation) -> float:
    """Return the share of tokens that are labels, of the first client's first rows."""
    examples = built.evaluator.task.encode(built.rows[0][:8])
    num_labels = sum(example.num_tokens - example.num_prompt_tokens for example in examples)
    return float(num_labels / sum(example.num_tokens for example in examples))
