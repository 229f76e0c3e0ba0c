"""Local steps of a client against the loop that a good engineer would write without fedlit, on the same model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from gpu_runs import Setting, federation
from lines import Line
from paired_timing import Elapsed, Ratio, Stopwatch, interleave
from torch.nn import functional
from torch.optim import Optimizer

from fedlit.algebra.tensors import copy_into, snapshot
from fedlit.round.loop import Federation

NUM_BATCHES = 8
"""Optimizer steps of one block."""


def bare_steps(model: Any, optimizer: Optimizer, batches: Sequence[Any], device: torch.device) -> list[float]:
    """Run the bare loop and return its losses, which are read once, at the end.

    Decoder, index, output projection, cross entropy: logits where a token has a label, and nowhere else; no mask.
    """
    model.train()
    losses = []
    for cpu_batch in batches:
        batch = cpu_batch.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            hidden = model.model(input_ids=batch.token_ids, use_cache=False).last_hidden_state
            labelled = hidden.view(-1, hidden.shape[-1]).index_select(0, batch.label_positions)
            loss = functional.cross_entropy(model.lm_head(labelled).float(), batch.label_ids)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).double().tolist()


class Workload:
    """One client's batches, which either loop trains from the same values."""

    def __init__(self, built: Federation) -> None:
        self._trainer: Any = built.trainer
        self._model: Any = built.host.model
        self._shared = built.host.travelling()
        self._initial = snapshot(self._shared)
        self._device = built.evaluator.fabric.device
        local, task = built.config.local, built.evaluator.task
        rows = (list(built.rows[0]) * NUM_BATCHES)[: NUM_BATCHES * local.batch_size]
        examples = task.encode(rows)
        size = local.batch_size
        self._batches = [task.collate(examples[start : start + size]) for start in range(0, len(examples), size)]

    def bare(self, optimizer: Optimizer) -> list[float]:
        """Return the losses of a block of the bare loop."""
        return bare_steps(self._model, optimizer, self._batches, self._device)

    def fedlit(self, optimizer: Optimizer) -> list[float]:
        """Return the losses of a block of fedlit's."""
        losses: list[float] = self._trainer.steps.run(
            optimizer, [[batch] for batch in self._batches], lambda: None
        ).tolist()
        return losses

    def block(self, loop: Callable[[Optimizer], list[float]]) -> tuple[list[float], Elapsed]:
        """Run a block with a new optimizer; return its losses and its time, all work of the device included."""
        copy_into(self._shared, self._initial)
        optimizer = self._trainer.module.configure_optimizers()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        watch = Stopwatch()
        losses = loop(optimizer)  # their reading waits for the device
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return losses, watch.elapsed()


def compare(what: str, model: str, setting: Setting, num_pairs: int) -> Line:
    """Return fedlit's throughput over the bare loop's by the clock: median of pairs, with a null control."""
    with federation(model, setting, "method=fedit") as built:
        work = Workload(built)
        expected, mine = work.block(work.bare)[0], work.block(work.fedlit)[0]  # and warm up
        worst = max(abs(one - other) for one, other in zip(expected, mine, strict=True))
        assert worst < 0.05, f"the loops do different work: losses {mine}, expected {expected}"
        blocks = interleave(
            {
                "bare": lambda: work.block(work.bare)[1],
                "null": lambda: work.block(work.bare)[1],
                "fedlit": lambda: work.block(work.fedlit)[1],
            },
            num_pairs,
            seed=0,
        )
    seconds = {name: [one.wall_s for one in timings] for name, timings in blocks.items()}
    ratio, null = Ratio.of(seconds["bare"], seconds["fedlit"]), Ratio.of(seconds["bare"], seconds["null"])
    step_ms = 1e3 * min(seconds["bare"]) / NUM_BATCHES
    same = "the same losses" if worst == 0 else f"losses differ by {worst:.1e}"
    note = f"wall time; bare {step_ms:.2f} ms a step at best, {same}"
    return Line(what=what, value=ratio.median, interval=ratio.interval, null=null.median, better="at least", note=note)
