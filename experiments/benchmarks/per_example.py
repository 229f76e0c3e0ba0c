"""Steps by DP-SGD over plain steps: `python experiments/benchmarks/per_example.py`.

Both sides are the trainers of a run with the same model, method, rows and optimizer, and both take their steps through
the code that a run takes: gradients of single rows, clipped, and noise (`PrivateSteps`), against one backward pass for
all rows (`LocalSteps`). The rows of a step are the same and as many on both sides. The data pipeline is on neither
side: batches are collated beforehand. One line is of the noise alone.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin
from torch.optim import Optimizer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from fedlit.adapters import trainable
from fedlit.algebra.tensors import copy_into, num_parameters, snapshot
from fedlit.client.per_example.noise import ExampleNoise
from fedlit.client.per_example.steps import PrivateRound, PrivateSteps
from fedlit.client.steps import ClientModule, LocalSteps
from fedlit.config import ComputeConfig, DataConfig, EvalConfig, LocalConfig, MethodConfig, ModelConfig, RunConfig
from fedlit.data.collation import Example, collate
from fedlit.launch import quieten
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS, load_tokenizer
from fedlit.process import communication
from fedlit.seeding import numpy_generator, torch_stream
from fedlit.tasks.causal_lm.task import CausalLM

NUM_VOCAB = 4096
LABELLED_SHARE = 0.3
TARGET = 2.0
"""Of LoRA's factors; layers trained whole have none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What trains on what. kind: `llama` or `gpt2`. method, options: of the run. hidden, layers: of the model. rows,
    tokens: of a batch.
    """

    name: str
    kind: str
    method: str
    options: Mapping[str, Any]
    target: float | None = None
    hidden: int = 256
    layers: int = 4
    rows: int = 8
    tokens: int = 128

    def model(self) -> Any:
        """Return a random model in float32, frozen."""
        sizes: dict[str, Any]
        heads = max(1, self.hidden // 64)
        with torch_stream(0, "benchmark/backbone"):
            if self.kind == "gpt2":
                sizes = {"n_embd": self.hidden, "n_layer": self.layers, "n_head": heads, "n_positions": self.tokens}
                still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
                return GPT2LMHeadModel(GPT2Config(vocab_size=NUM_VOCAB, **sizes, **still)).requires_grad_(False)
            sizes = {"hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": heads}
            sizes |= {"intermediate_size": self.hidden * 8 // 3, "max_position_embeddings": self.tokens}
            return LlamaForCausalLM(LlamaConfig(vocab_size=NUM_VOCAB, **sizes)).requires_grad_(False)


LORA: Mapping[str, Any] = {"lora_rank": 8, "lora_alpha": 16.0, "target_modules": "attention"}
CASES = (
    Case(
        name="LoRA of rank 8 on attention, Llama 256 x 4",
        kind="llama",
        method="fedit",
        options=LORA,
        target=TARGET,
    ),
    Case(
        name="LoRA of rank 8 on attention, GPT-2 256 x 4",
        kind="gpt2",
        method="fedit",
        options=LORA,
        target=TARGET,
    ),
    Case(
        name="FFA-LoRA of rank 8, Llama 256 x 4",
        kind="llama",
        method="ffa_lora",
        options=LORA,
        target=TARGET,
    ),
    Case(
        name="up projections, Llama 256 x 4",
        kind="llama",
        method="fedftg",
        options={"optimizer": "adamw"},
    ),
    Case(
        name="the whole model, GPT-2 256 x 4",
        kind="gpt2",
        method="full",
        options={"target_modules": "model"},
    ),
)
QUICK = Case(
    name="LoRA of rank 2, Llama 64 x 1",
    kind="llama",
    hidden=64,
    layers=1,
    rows=2,
    tokens=16,
    method="fedit",
    options={**LORA, "lora_rank": 2},
    target=TARGET,
)


class Workload:
    """One case, ready to be trained by either side."""

    def __init__(self, case: Case, fabric: Any, num_steps: int) -> None:
        self.local = LocalConfig(steps=num_steps, batch_size=case.rows)
        options = {key: value for key, value in case.options.items() if key != "optimizer"}
        method = MethodConfig(name=case.method, options=options, optimizer=case.options.get("optimizer"))
        self.method = build_method(RunConfig(method=method, local=self.local))
        model = case.model()
        with torch_stream(0, "benchmark/adapter"):
            self.method.attach(model, PROJECTIONS[case.kind])
        self.task = CausalLM(
            tokenizer=load_tokenizer(ModelConfig()),
            data=DataConfig(),
            eval=EvalConfig(),
            max_length_tokens=case.tokens,
            loss_on=self.local.loss_on,
        )
        self.trained = trainable(model)
        self.module = ClientModule(model, self.task, self.method, self.trained).train()
        fabric.setup_module(self.module)
        self.initial = snapshot({name: each.data for name, each in self.trained.items()})
        steps = [self._examples(case) for _ in range(num_steps)]
        self.batches = [[collate(step, 0, loss_on="response")] for step in steps]
        self.joined = [[self.task.join([self.task.collate([each]) for each in step])] for step in steps]
        self.plain = LocalSteps(fabric=fabric, module=self.module, local=self.local)
        self.private = PrivateSteps(
            fabric=fabric, module=self.module, local=self.local, trained=self.trained, clip_norm=1.0
        )
        self.num_expected = float(case.rows)

    @staticmethod
    def _examples(case: Case) -> list[Example]:
        """Return rows of random tokens, all of one length, so that nothing is padding."""
        draw = numpy_generator(0, "benchmark/tokens")
        num_prompt_tokens = min(round(case.tokens * (1 - LABELLED_SHARE)), case.tokens - 1)
        return [
            Example(
                token_ids=tuple(draw.integers(NUM_VOCAB, size=case.tokens).tolist()),
                num_prompt_tokens=num_prompt_tokens,
                prompt="",
                response="",
                truncated=False,
            )
            for _ in range(case.rows)
        ]

    def _plain(self, optimizer: Optimizer) -> None:
        self.plain.run(optimizer, self.batches, lambda: None)

    def _private(self, optimizer: Optimizer, deviation: float = 0.5) -> None:
        noise = ExampleNoise(seed=0, round_idx=0, client_id=0, deviation=deviation) if deviation else None
        work = PrivateRound(batches=self.joined, num_expected=self.num_expected, noise=noise)
        self.private.run(optimizer, work, lambda: None)

    def variants(self) -> dict[str, Callable[[], Elapsed]]:
        """Return the sides by name; each call trains one block from the initial values and returns its time."""
        sides: dict[str, Callable[[Optimizer], None]] = {
            "plain": self._plain,
            "null": self._plain,
            "private": self._private,
            "without noise": lambda optimizer: self._private(optimizer, 0.0),
        }
        gc.collect()
        gc.freeze()  # a collection before each block then looks through what the steps make
        for side in sides.values():
            self._timed(side)
        return {name: lambda side=side: self._timed(side) for name, side in sides.items()}  # type: ignore[misc]

    def _timed(self, side: Callable[[Optimizer], None]) -> Elapsed:
        copy_into({name: each.data for name, each in self.trained.items()}, self.initial)
        optimizer = self.module.configure_optimizers()
        gc.collect()
        watch = Stopwatch()
        side(optimizer)
        return watch.elapsed()


def measure(case: Case, fabric: Any, *, num_pairs: int, num_steps: int, seed: int) -> Line:
    """Return a case's line: a private step's CPU time over a plain one's."""
    workload = Workload(case, fabric, num_steps)
    timings = interleave(workload.variants(), num_pairs, seed)
    seconds = {name: [each.cpu_s for each in blocks] for name, blocks in timings.items()}
    # Ratio.of divides the first by the second.
    ratio, null = Ratio.of(seconds["private"], seconds["plain"]), Ratio.of(seconds["null"], seconds["plain"])
    quiet = Ratio.of(seconds["without noise"], seconds["plain"])
    plain_ms, private_ms = (1e3 * median(seconds[name]) / num_steps for name in ("plain", "private"))
    return Line(
        what=f"a step by DP-SGD over a plain one: {case.name}",
        value=ratio.median,
        interval=ratio.interval,
        null=null.median,
        target=case.target,
        note=f"{case.rows} x {case.tokens} tokens, {num_parameters(workload.initial):,} numbers train: "
        f"{private_ms:.1f} over {plain_ms:.1f} ms of CPU; without noise {quiet.median:.2f}",
    )


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of blocks of one case")
    parser.add_argument("--steps-per-block", type=int, default=3, help="optimizer steps of one block")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the blocks")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args(arguments)
    if options.quick:
        options.pairs, options.steps_per_block = 2, 2
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure every case."""
    pin()
    options = parse_arguments(arguments)
    quieten()
    fabric = communication.launch(ComputeConfig(accelerator="cpu", threads=1))
    try:
        lines = [
            measure(case, fabric, num_pairs=options.pairs, num_steps=options.steps_per_block, seed=options.seed)
            for case in ([QUICK] if options.quick else CASES)
            if options.only in case.name
        ]
    finally:
        communication.shutdown()
    tell("per_example", lines, options)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
