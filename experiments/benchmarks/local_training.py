"""Local training against a bare PyTorch loop: `python experiments/benchmarks/local_training.py`.

Measures LocalSteps.run (Fabric, its autocast, ClientModule.training_step, CausalLM.loss) and the loop that a good
engineer would write without them, with the same fused AdamW and the same transformers and peft layers. Both train one
model instance from the same values on the same batches; every block must give the same losses, and the first ones the
same weights, bit for bit. The data pipeline is on neither side: batches are collated beforehand.
"""

import argparse
import gc
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning
import peft
import torch
import transformers
from lines import Line, machine
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin, verdict
from torch.nn import functional
from torch.optim import Optimizer
from transformers import LlamaConfig, LlamaForCausalLM

from fedlit.adapters import trainable
from fedlit.algebra.tensors import checksum, copy_into, snapshot
from fedlit.client.steps import ClientModule, LocalSteps
from fedlit.config import ComputeConfig, DataConfig, EvalConfig, LocalConfig, MethodConfig, ModelConfig, RunConfig
from fedlit.data.collation import Batch, Example, collate
from fedlit.launch import quieten
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS, Backbone, load_backbone, load_tokenizer
from fedlit.process import communication
from fedlit.seeding import numpy_generator, torch_stream
from fedlit.tasks.causal_lm.task import CausalLM

NUM_VOCAB = 4096
HEAD_SIZE = 64
LABELLED_SHARE = 0.3
"""part of a row that is response"""
LONG_STEP_S = 0.030
LONG_STEP_TARGET = 0.98
SHORT_STEP_TARGET = 0.97
DEFAULT_SHAPES = ("64/4/1/16", "tiny/8/128", "256/4/1/128", "256/4/4/128", "512/8/1/256")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Model and batch: `hidden/layers/rows/tokens` for a random Llama, `tiny/rows/tokens` for the packaged backbone.

    num_vocab: of the random one.
    """

    hidden: int | None
    layers: int | None
    batch_size: int
    num_tokens: int
    num_vocab: int = NUM_VOCAB

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Return the shape that `text` stands for."""
        model, _, rest = text.partition("/")
        try:
            if model == "tiny":
                batch_size, num_tokens = map(int, rest.split("/"))
                return cls(hidden=None, layers=None, batch_size=batch_size, num_tokens=num_tokens)
            layers, batch_size, num_tokens = map(int, rest.split("/"))
            hidden = int(model)
        except ValueError as error:
            reason = f"shape {text} is not hidden/layers/rows/tokens or tiny/rows/tokens, e.g. 256/4/1/128"
            raise argparse.ArgumentTypeError(reason) from error
        if hidden % HEAD_SIZE or min(hidden, layers, batch_size) < 1 or num_tokens < 2:
            reason = f"shape {text} needs a hidden size divisible by {HEAD_SIZE}, a layer, a row and two tokens"
            raise argparse.ArgumentTypeError(reason)
        return cls(hidden=hidden, layers=layers, batch_size=batch_size, num_tokens=num_tokens)

    def __str__(self) -> str:
        model = "tiny" if self.hidden is None else f"{self.hidden}/{self.layers}"
        return f"{model} B{self.batch_size} T{self.num_tokens}"

    def backbone(self) -> Backbone:
        """Return the frozen model in float32."""
        if self.hidden is None:
            return load_backbone(ModelConfig())
        assert self.layers is not None
        config = LlamaConfig(
            vocab_size=self.num_vocab,
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 8 // 3,
            num_hidden_layers=self.layers,
            num_attention_heads=self.hidden // HEAD_SIZE,
            max_position_embeddings=self.num_tokens,
        )
        with torch_stream(0, "benchmark/backbone"):
            model = LlamaForCausalLM(config).requires_grad_(False)
        return Backbone(model=model, tokenizer=load_tokenizer(ModelConfig()), projections=PROJECTIONS["llama"])

    def batches(self, num_batches: int, num_vocab: int) -> list[Batch]:
        """Return batches of rows of random tokens, all of one length, so that nothing is padding."""
        draw = numpy_generator(0, "benchmark/tokens")
        num_prompt_tokens = min(round(self.num_tokens * (1 - LABELLED_SHARE)), self.num_tokens - 1)

        def example() -> Example:
            token_ids = tuple(draw.integers(num_vocab, size=self.num_tokens).tolist())
            return Example(
                token_ids=token_ids, num_prompt_tokens=num_prompt_tokens, prompt="", response="", truncated=False
            )

        return [collate([example() for _ in range(self.batch_size)], 0, loss_on="response") for _ in range(num_batches)]


def bare_steps(model: Any, optimizer: Optimizer, batches: Sequence[Batch]) -> list[float]:
    """Run the bare loop and return its losses, which are read once, at the end.

    No attention mask is given, since nothing is padding.
    """
    model.train()
    losses = []
    for batch in batches:
        hidden = model.model(input_ids=batch.token_ids, use_cache=False).last_hidden_state
        labelled = hidden.view(-1, hidden.shape[-1]).index_select(0, batch.label_positions)
        loss = functional.cross_entropy(model.lm_head(labelled), batch.label_ids)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


class Workload:
    """One shape, ready to be trained by either loop."""

    def __init__(self, shape: Shape, num_steps: int) -> None:
        local = LocalConfig(steps=num_steps, batch_size=shape.batch_size)
        backbone = shape.backbone()
        self.method = build_method(RunConfig(method=MethodConfig(name="fedit"), local=local))
        with torch_stream(0, "benchmark/adapter"):
            self.method.adapter.attach(backbone.model, backbone.projections)
        self.model = backbone.model
        self.batches = shape.batches(num_steps, backbone.model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        task = CausalLM(
            tokenizer=backbone.tokenizer,
            data=DataConfig(),
            eval=EvalConfig(),
            max_length_tokens=shape.num_tokens,
            loss_on=local.loss_on,
        )
        self.module = ClientModule(self.model, task, self.method, trainable(self.model)).train()
        self.local = local
        self.initial = snapshot(self.method.shared(self.model))

    def variants(self, fabric: Any) -> dict[str, Callable[[], Elapsed]]:
        """Return the loops by name; each call trains one block from the initial values and returns its time."""
        fabric.setup_module(self.module)
        steps = LocalSteps(fabric=fabric, module=self.module, local=self.local)

        def bare(optimizer: Optimizer) -> list[float]:
            return bare_steps(self.model, optimizer, self.batches)

        def fedlit(optimizer: Optimizer) -> list[float]:
            return steps.run(optimizer, [[batch] for batch in self.batches], lambda: None).tolist()

        gc.collect()
        gc.freeze()  # a collection before each block then looks through what the loops make, not through every library
        expected, weights = self.train(bare)[0], self.weights()
        self.train(fedlit, expected)
        assert self.weights() == weights, "the loops end in different weights"
        return {
            "bare": lambda: self.train(bare, expected)[1],
            "null": lambda: self.train(bare, expected)[1],
            "fedlit": lambda: self.train(fedlit, expected)[1],
        }

    def train(
        self, loop: Callable[[Optimizer], list[float]], expected: list[float] | None = None
    ) -> tuple[list[float], Elapsed]:
        """Run `loop` once, with a new optimizer; return its losses, which must be `expected`, and its time."""
        copy_into(self.method.shared(self.model), self.initial)
        optimizer = self.module.configure_optimizers()
        gc.collect()  # so that a collection inside a block is not left over from the block before
        watch = Stopwatch()
        losses = loop(optimizer)
        elapsed = watch.elapsed()
        assert losses == (expected or losses), f"the loops do different work: losses {losses}, expected {expected}"
        return losses, elapsed

    def weights(self) -> str:
        """Return the checksum of the trained tensors."""
        return checksum({name: parameter.data for name, parameter in trainable(self.model).items()})


def measure(shape: Shape, fabric: Any, *, num_pairs: int, num_steps: int, seed: int) -> dict[str, Any]:
    """Return the result of one shape as plain values; a ratio above 1 says that the variant is faster than `bare`."""
    workload = Workload(shape, num_steps)
    timings = interleave(workload.variants(fabric), num_pairs, seed)
    result: dict[str, Any] = {"shape": str(shape), "num_pairs": num_pairs, "steps_per_block": num_steps}
    ratios = {}
    for clock in ("cpu", "wall"):
        seconds = {name: [getattr(one, f"{clock}_s") for one in blocks] for name, blocks in timings.items()}
        for name in ("null", "fedlit"):
            ratios[clock, name] = Ratio.of(seconds["bare"], seconds[name])
            result[f"{clock}_{name}_ratio"] = asdict(ratios[clock, name])
        differences = [mine - bare for mine, bare in zip(seconds["fedlit"], seconds["bare"], strict=True)]
        result[f"{clock}_bare_step_ms"] = 1e3 * median(seconds["bare"]) / num_steps
        result[f"{clock}_fedlit_step_ms"] = 1e3 * median(seconds["fedlit"]) / num_steps
        result[f"{clock}_overhead_step_us"] = 1e6 * median(differences) / num_steps
        num_tokens = shape.batch_size * shape.num_tokens * num_steps
        result[f"{clock}_fedlit_tokens_per_s"] = num_tokens / median(seconds["fedlit"])
    is_long = result["cpu_bare_step_ms"] >= 1e3 * LONG_STEP_S
    target = LONG_STEP_TARGET if is_long else SHORT_STEP_TARGET
    result["target"] = target
    result["verdict"] = verdict(ratios["cpu", "null"], ratios["cpu", "fedlit"], target)
    line = "{:<16} {:>9.2f} {:>9,.0f}  {!s:<21} {!s:<21} {!s:<21} {:>8.0f}  {}"
    columns = [result["cpu_bare_step_ms"], result["cpu_fedlit_tokens_per_s"]]
    columns += [ratios["cpu", "null"], ratios["cpu", "fedlit"], ratios["wall", "fedlit"]]
    print(line.format(str(shape), *columns, result["cpu_overhead_step_us"], result["verdict"]), flush=True)
    return result


def line_of(result: Mapping[str, Any]) -> Line:
    """Return a shape's result as a line of the common table."""
    ratio, wall = result["cpu_fedlit_ratio"], result["wall_fedlit_ratio"]
    return Line(
        what=f"local steps, {result['shape']}: throughput over a bare loop of steps",
        value=ratio["median"],
        interval=ratio["interval"],
        null=result["cpu_null_ratio"]["median"],
        target=result["target"],
        better="at least",
        note=f"{result['cpu_bare_step_ms']:.1f} ms of CPU a bare step, {result['cpu_overhead_step_us']:.0f} us more; "
        f"by the clock {wall['median']:.3f}",
    )


def environment() -> dict[str, str]:
    """Return what the figures depend on besides the code."""
    versions = {library.__name__: library.__version__ for library in (torch, lightning, transformers, peft)}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **versions,
    }


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=Shape.parse,
        default=[Shape.parse(text) for text in DEFAULT_SHAPES],
        help="hidden/layers/rows/tokens of a random Llama, or tiny/rows/tokens",
    )
    parser.add_argument("--pairs", type=int, default=60, help="pairs of blocks of one shape")
    parser.add_argument("--steps-per-block", type=int, default=4, help="optimizer steps of one block")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the blocks")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.add_argument("--quick", action="store_true", help="one small shape, two pairs: shows that it runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.shapes, options.pairs, options.steps_per_block = [Shape.parse("64/1/1/8")], 2, 2
    return options


def main(arguments: list[str]) -> int:
    """Measure every shape; return 0 if all met their target, else 1."""
    pin()
    options = parse_arguments(arguments)
    quieten()
    fabric = communication.launch(ComputeConfig(accelerator="cpu", threads=1))
    heading = "{:<16} {:>9} {:>9}  {:<21} {:<21} {:<21} {:>8}"
    print("throughput over the bare loop's: median of the pairs (95 % interval); CPU time, one thread, unless said")
    names = ("shape", "ms/step", "tokens/s", "null control", "fedlit", "fedlit, wall", "us/step")
    print(heading.format(*names), flush=True)
    try:
        results = [
            measure(shape, fabric, num_pairs=options.pairs, num_steps=options.steps_per_block, seed=options.seed)
            for shape in options.shapes
        ]
    finally:
        communication.shutdown()
    if options.json is not None:
        content = {"script": "local_training", "machine": machine(), "environment": environment(), "results": results}
        content["lines"] = [asdict(line_of(result)) for result in results]
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(result["verdict"].startswith("met") for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
