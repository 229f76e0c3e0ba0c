"""How much of a score's variance is the method's, the draw's, that of both together and the seed's.

The table must be complete: a draw that lacks a run of one method is left out, and the note says which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlit.lab.report.over_draws.scores import Scores
from fedlit.statistics.shares import VarianceShares, variance_shares

NAMED = 8
"""Draws that a note names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """The shares of one score under one condition. note: what the table leaves out, and what the shares hold."""

    score: str
    condition: str
    found: VarianceShares
    note: str


def shares_of(all_scores: Sequence[Scores]) -> list[Shared]:
    """Return the shares of every score under every condition."""
    shared = []
    for scores in all_scores:
        table, note = complete_table(scores)
        found = variance_shares(table)
        notes = [note]
        if scores.own_seeds and len(scores.draws) > 1:
            notes.append("every draw has a seed of its own: the draw's share is that of both")
        elif found.reason:
            notes.append(found.reason)
        words = "; ".join(text for text in notes if text)
        shared.append(Shared(score=scores.score, condition=scores.condition, found=found, note=words))
    return shared


def complete_table(scores: Scores) -> tuple[npt.NDArray[Any], str]:
    """Return the scores (methods, draws, seeds) of the draws that every method has, and what is left out.

    Seeds belong to their draw: those that all methods have on it. Their number is the one that keeps most runs, of the
    draws that have as many; where they have more, the first ones count.
    """
    seeds = {draw: scores.common_seeds(draw) for draw in scores.draws}
    most = max(map(len, seeds.values()), default=0)
    kept = {num: [draw for draw, found in seeds.items() if len(found) >= num] for num in range(1, most + 1)}
    num_seeds = max(kept, key=lambda num: (num * len(kept[num]), len(kept[num])), default=0)
    draws = kept.get(num_seeds, [])
    table = [
        [[scores.runs[method][draw][seed].score for seed in seeds[draw][:num_seeds]] for draw in draws]
        for method in scores.runs
    ]
    array = np.array(table, dtype=np.float64).reshape(len(scores.runs), len(draws), num_seeds)
    return array, _left_out(scores, draws, num_seeds)


def _left_out(scores: Scores, draws: Sequence[Any], num_seeds: int) -> str:
    notes = []
    missing = [draw for draw in scores.draws if draw not in draws]
    if missing:
        named = ", ".join(map(str, missing[:NAMED])) + (" and others" if len(missing) > NAMED else "")
        many = "s" if len(missing) > 1 else ""
        runs = "a run" if num_seeds < 2 else f"{num_seeds} seeds"
        notes.append(f"left out draw{many} {named}, where not every method has {runs}")
    extra = sum(len(of_draw[draw]) - num_seeds for of_draw in scores.runs.values() for draw in draws)
    if extra:
        notes.append(f"{extra} run{'s' if extra > 1 else ''} beyond {num_seeds} seed{'s' if num_seeds > 1 else ''}")
    return "; ".join(notes)
