"""Logits where there are labels against all logits: step throughput, `python experiments/benchmarks/labelled.py`.

fedlit's LocalSteps.run, which lets the model compute logits at labelled positions alone, and the loop that most people
write: the model called with `labels`, -100 on the prompt, which computes logits everywhere and leaves some out of the
loss. Both train the same model instance (a random Llama with a vocabulary of 32,000, LoRA of rank 8 on q, k and v,
fused AdamW) on the same batches, 30 % of whose tokens are labelled and none padding; the losses must agree.

How much it saves depends on the share of the vocabulary's projection in a step: the target is that of a small model
(256 x 4, as elsewhere in this folder), whose step is mostly that projection. A larger one is shown beside it.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lines import Line, add_arguments, tell
from local_training import LABELLED_SHARE, Shape, Workload
from paired_timing import Elapsed, Ratio, interleave, median, pin
from torch import Tensor
from torch.optim import Optimizer

from fedlit.client.steps import LocalSteps
from fedlit.config import ComputeConfig
from fedlit.data.collation import Batch
from fedlit.launch import quieten
from fedlit.process import communication

NUM_VOCAB = 32_000
TARGET = 1.7
SHAPES = (
    (Shape(hidden=256, layers=4, batch_size=4, num_tokens=128, num_vocab=NUM_VOCAB), TARGET),
    (Shape(hidden=512, layers=8, batch_size=2, num_tokens=128, num_vocab=NUM_VOCAB), None),
)
QUICK = ((Shape(hidden=64, layers=1, batch_size=1, num_tokens=16, num_vocab=NUM_VOCAB), TARGET),)


def labels_of(batch: Batch) -> Tensor:
    """Return the labels (n, T) as transformers takes them: each token at its own place, -100 where it is none."""
    labels = torch.full((batch.token_ids.numel(),), -100)
    labels[batch.label_positions + 1] = batch.label_ids
    return labels.view_as(batch.token_ids)


def all_logits(model: Any, optimizer: Optimizer, batches: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Take a step on each batch and return the losses."""
    losses = []
    for token_ids, labels in batches:
        loss = model(input_ids=token_ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def measure(shape: Shape, target: float | None, fabric: Any, num_pairs: int, num_steps: int) -> Line:
    """Return the line of one shape."""
    workload = Workload(shape, num_steps)
    fabric.setup_module(workload.module)
    steps = LocalSteps(fabric=fabric, module=workload.module, local=workload.local)
    whole = [(batch.token_ids, labels_of(batch)) for batch in workload.batches]
    batches = [[batch] for batch in workload.batches]
    loops: dict[str, Callable[[Optimizer], list[float]]] = {
        "bare": lambda optimizer: all_logits(workload.model, optimizer, whole),
        "fedlit": lambda optimizer: steps.run(optimizer, batches, lambda: None).tolist(),
    }
    gc.collect()
    gc.freeze()
    losses = {name: workload.train(loop)[0] for name, loop in loops.items()}
    far = max(abs(mine - other) for mine, other in zip(losses["fedlit"], losses["bare"], strict=True))
    assert far < 1e-3, f"the loops do different work: losses {losses}"
    loops["null"] = loops["bare"]
    timings = interleave({name: _block(workload, loop) for name, loop in loops.items()}, num_pairs, seed=0)
    cpu = {name: [one.cpu_s for one in blocks] for name, blocks in timings.items()}
    wall = {name: [one.wall_s for one in blocks] for name, blocks in timings.items()}
    ratio, null = Ratio.of(cpu["bare"], cpu["fedlit"]), Ratio.of(cpu["bare"], cpu["null"])
    per_step = {name: 1e3 * median(seconds) / num_steps for name, seconds in cpu.items()}
    return Line(
        what=f"labelled positions, {shape}, {100 * LABELLED_SHARE:.0f} % labelled, vocabulary {shape.num_vocab:,}",
        value=ratio.median,
        interval=ratio.interval,
        null=null.median,
        target=target,
        better="at least",
        note=f"{per_step['fedlit']:.0f} over {per_step['bare']:.0f} ms of CPU a step; by the clock "
        f"{Ratio.of(wall['bare'], wall['fedlit']).median:.2f}; losses differ by {far:.0e}",
    )


def _block(workload: Workload, loop: Callable[[Optimizer], list[float]]) -> Callable[[], Elapsed]:
    return lambda: workload.train(loop)[1]


def main() -> int:
    """Measure every shape."""
    pin()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=10, help="pairs of blocks (default: 10)")
    parser.add_argument("--steps-per-block", type=int, default=2, help="optimizer steps of a block (default: 2)")
    add_arguments(parser)
    given = parser.parse_args()
    quieten()
    fabric = communication.launch(ComputeConfig(accelerator="cpu", threads=1))
    try:
        lines = [
            measure(shape, target, fabric, 2 if given.quick else given.pairs, given.steps_per_block)
            for shape, target in (QUICK if given.quick else SHAPES)
        ]
    finally:
        communication.shutdown()
    tell("labelled", lines, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
