"""GaLore's subspace refresh, full SVD against randomised: `python experiments/benchmarks/galore.py`.

Times the refresh of one matrix by GaLore's optimizer, and tells how much of the squared norm the randomised subspace
captures of what the best one does: for spectra that fall slowly and fast, and for gradients of the packaged backbone.
"""

import argparse
import dataclasses
import decimal
import logging
import pickle
import random
import sys
import typing
from collections.abc import Callable, Iterator, Sequence

import torch
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, Ratio, Stopwatch, interleave, median, pin
from torch import Tensor, nn

from fedlit.client.optimizers.galore import GaLore, Projection
from fedlit.client.optimizers.subspace import is_cheaper, leading_sides
from fedlit.config import ModelConfig
from fedlit.models import load_backbone

SHAPE, RANK = (5632, 2048), 128
TARGET, ENERGY = 10.0, 0.99
POWERS = (2.0, 1.0, 0.5, 0.25, 0.0)
"""Singular values k^-power; 0 stands for a matrix of independent normal numbers."""


def spectral(shape: tuple[int, int], power: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random matrix whose singular values are k^-power, and these values."""
    if power == 0:
        matrix = torch.randn(shape, generator=generator)
        return matrix, torch.linalg.svdvals(matrix)
    values = torch.arange(1.0, min(shape) + 1) ** -power
    left, right = (torch.linalg.qr(torch.randn(side, min(shape), generator=generator)).Q for side in shape)
    return (left * values) @ right.T, values


def captured(matrix: Tensor, values: Tensor, rank: int) -> float:
    """Return the squared norm that the randomised right subspace captures over that of the best one."""
    (basis,) = leading_sides(matrix, rank, torch.Generator().manual_seed(1), "right")
    return float((matrix @ basis.T).square().sum() / values[:rank].square().sum())


def energy_lines(shape: tuple[int, int], rank: int) -> Iterator[Line]:
    """Yield the captured energy for every spectrum."""
    generator = torch.Generator().manual_seed(0)
    for power in POWERS:
        matrix, values = spectral(shape, power, generator)
        share = float(values[:rank].square().sum() / values.square().sum())
        told = f"the best subspace has {share:.2f} of the squared norm"
        value = captured(matrix, values, rank)
        if value < ENERGY:
            told += "; this flat, no direction is much better than another, and only more iterations would find it"
        yield Line(
            what=f"captured over the best, {f'k^-{power:g}' if power else 'noise'}",
            value=value,
            target=ENERGY,
            better="at least",
            note=told,
        )


def real_lines(rank: int) -> Iterator[Line]:
    """Yield the captured energy for gradients of the packaged backbone's up projections, least and median."""
    gradients = real_gradients()
    assert is_cheaper(gradients[0].shape, rank), f"rank {rank} is no part of {tuple(gradients[0].shape)}"
    spectra = [torch.linalg.svdvals(gradient) for gradient in gradients]
    found = [captured(gradient, values, rank) for gradient, values in zip(gradients, spectra, strict=True)]
    shares = [float(values[:rank].square().sum() / values.square().sum()) for values in spectra]
    yield Line(
        what=f"captured over the best, gradients of a trained model at rank {rank}, least of {len(found)}",
        value=min(found),
        target=ENERGY,
        better="at least",
        note=f"{tuple(gradients[0].shape)}, packaged backbone; the best has {min(shares):.2f} of the squared norm",
    )


def real_gradients() -> list[Tensor]:
    """Return the gradients of the packaged backbone's up projections on 8 rows of 128 tokens of Python's own pages."""
    backbone = load_backbone(ModelConfig())
    text = "\n".join(
        module.__doc__ or "" for module in (argparse, dataclasses, decimal, logging, pickle, random, typing)
    )
    token_ids = backbone.tokenizer(text * 8, add_special_tokens=False)["input_ids"][: 8 * 128]
    rows = torch.tensor(token_ids).view(8, 128)
    model = backbone.model.requires_grad_(True)
    model(input_ids=rows, labels=rows).loss.backward()
    named = dict(model.named_parameters())
    return [parameter.grad for name, parameter in named.items() if "up_proj" in name and parameter.grad is not None]


def refresh_line(shape: tuple[int, int], rank: int, num_pairs: int) -> Line:
    """Return how much faster the optimizer's first step is, which takes the SVD, less that of a later one."""
    generator = torch.Generator().manual_seed(0)
    gradient, _ = spectral(shape, 1.0, generator)
    seconds = {
        name: [one.cpu_s for one in blocks]
        for name, blocks in interleave(
            {"full": refresh(gradient, rank, "full"), **{f"{n}": refresh(gradient, rank, "randomized") for n in "ab"}},
            num_pairs,
            seed=0,
        ).items()
    }
    ratio = Ratio.of(seconds["full"], seconds["a"])
    return Line(
        what=f"refresh, full over randomised, {shape[0]} x {shape[1]}, rank {rank}",
        value=ratio.median,
        interval=ratio.interval,
        null=Ratio.of(seconds["b"], seconds["a"]).median,
        target=TARGET,
        better="at least",
        note=f"{median(seconds['full']):.3g} s against {median(seconds['a']):.3g} s",
    )


def refresh(gradient: Tensor, rank: int, svd: str) -> Callable[[], Elapsed]:
    """Return a function that takes GaLore's projection of a gradient once, by the optimizer's own projector."""
    parameter = nn.Parameter(torch.zeros_like(gradient))
    options = Projection(**{**dataclasses.asdict(Projection()), "rank": rank, "svd": svd})
    optimizer = GaLore(lr=0.0, galore=options).build({"up": parameter})
    parameter.grad = gradient
    optimizer.step()
    projector = optimizer.state[parameter]["projector"]

    def block() -> Elapsed:
        watch = Stopwatch()
        projector.get_orthogonal_matrix(gradient, rank, "right")
        return watch.elapsed()

    return block


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return 0."""
    pin()
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7, help="pairs of refreshes; the interval needs six")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shape, rank, pairs = ((150, 100), 8, 2) if options.quick else (SHAPE, RANK, options.pairs)
    tell("galore", [refresh_line(shape, rank, pairs), *energy_lines(shape, rank), *real_lines(16)], options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
