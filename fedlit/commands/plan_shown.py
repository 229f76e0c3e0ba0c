"""The plan of a sweep as a person reads it, and as JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedlit.budget.power import ALPHA, POWER, Power
from fedlit.budget.sweep_plan import KindPlan, SweepPlan
from fedlit.budget.timing import ASSUMED_SPREAD, Seconds
from fedlit.config.keys import show as show_value
from fedlit.lines import printable
from fedlit.scores import SCORES
from fedlit.units import readable_bytes, readable_flops, readable_seconds

MOST_VALUES = 8
"""Of an axis that are shown."""


def as_json(plan: SweepPlan) -> str:
    """Return all numbers of a plan; null stands for what nobody knows. Seconds, bytes and FLOPs are plain numbers."""
    return json.dumps(asdict(plan), indent=2, default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value) if isinstance(value, Path) else repr(value)


def show(plan: SweepPlan) -> None:
    """Print a plan, as wide as it is where nobody looks at it on a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    for part in (_head(plan), _kinds(plan), _time(plan), _storage(plan), _power(plan.power), plan.notes):
        if isinstance(part, Table):
            console.print(part)
            console.print()
            continue
        for line in part:
            console.print(printable(line), markup=False, soft_wrap=True)


def _head(plan: SweepPlan) -> Iterator[str]:
    states = ", ".join(f"{number} {state}" for state, number in plan.states.items())
    yield f"{plan.name}: {_number(plan.num_cells, 'cell')} ({states}), {_number(len(plan.kinds), 'kind')}"
    width = max(map(len, plan.axes), default=0)
    for key, values in plan.axes.items():
        shown = ", ".join(show_value(value) for value in values[:MOST_VALUES])
        more = f", and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else ""
        yield f"  {key.ljust(width)}  {len(values)}: {shown}{more}"
    yield ""


def _kinds(plan: SweepPlan) -> Table:
    """Return a line for each kind of cells."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = ["kind", "cells", "left", "trained", "steps", "training", "evaluation", "up a round", "down a round"]
    for head in (*heads, "memory", "run folder", "work", "one cell"):
        table.add_column(head, justify="left" if head == "kind" else "right", overflow="fold")
    for kind in plan.kinds:
        table.add_row(
            Text(printable(kind.name)),
            str(kind.num_cells),
            str(kind.num_left),
            f"{kind.num_trained:,}",
            f"{kind.num_steps:,}",
            readable_flops(kind.train_flops),
            readable_flops(kind.evaluate_flops),
            readable_bytes(kind.uplink_bytes),
            readable_bytes(kind.downlink_bytes),
            readable_bytes(sum(kind.memory_bytes.values())),
            readable_bytes(kind.stays_bytes),
            f"{kind.relative:.2f}",
            _one_cell(kind),
        )
    return table


def _one_cell(kind: KindPlan) -> str:
    if kind.forecast is None:
        return "unknown"
    mark = "" if kind.forecast.own else " *"
    return f"{_range(kind.forecast.seconds)}{mark}"


def _time(plan: SweepPlan) -> Iterator[str]:
    num_left = sum(kind.num_left for kind in plan.kinds)
    if not num_left:
        yield "work     no cell is left"
    else:
        yield (
            f"work     {_number(num_left, 'cell')} left, of {plan.work:.1f} times the work of the cheapest kind's cell "
            "(training and evaluation in FLOPs, answers at their longest)"
        )
    if not plan.measured:
        yield "time     unknown: nothing was measured; run one cell, or give --measured=<folder of a finished run>"
        return
    if plan.wall_s is not None and plan.device_s is not None:
        hours = [plan.device_s.times(1 / 3600)]
        told = ", ".join(f"{each.estimate:.3g} device-hours ({each.low:.3g} to {each.high:.3g})" for each in hours)
        yield (
            f"time     {_range(plan.wall_s)} with {_number(plan.jobs, 'cell')} at a time on "
            f"{_number(plan.devices, 'device')} each: {told}"
        )
    yield f"         from {_number(len(plan.measured), 'measured run')} on {_devices(plan)}; {_spread(plan)}"
    if plan.start_s is None:
        yield "         a process takes some seconds to start, which are not in it: no finished cell followed another"
    if any(kind.forecast is not None and not kind.forecast.own for kind in plan.kinds):
        yield "         *: scaled by the work, between FLOPs and number of operations; the rule's own work is not in it"
    if any(kind.forecast is not None and kind.forecast.far for kind in plan.kinds):
        yield "         some kinds have more than 10 times the work of what was measured, or less; measure one of them"
    busy = plan.jobs * plan.devices * plan.threads
    if plan.num_cores is not None and busy > plan.num_cores:
        yield f"         {busy} threads at a time on {plan.num_cores} cores slow one another, which is not in it"


def _devices(plan: SweepPlan) -> str:
    return " and ".join(dict.fromkeys(times.device for times in plan.measured))


def _spread(plan: SweepPlan) -> str:
    if plan.spread is None:
        return f"no two of one kind: a run is taken to be up to {ASSUMED_SPREAD:g} times another"
    return f"runs of one kind are up to {plan.spread:.2f} times their mean"


def _storage(plan: SweepPlan) -> Iterator[str]:
    known = "" if all(kind.is_storage_measured for kind in plan.kinds) else "about "
    yield (
        f"storage  {known}{readable_bytes(plan.stays_bytes)} stay in {plan.folder}, {readable_bytes(plan.peak_bytes)} "
        "at the most while it runs"
    )


def _power(power: Power) -> Iterator[str]:
    draws = _number(power.num_draws, "draw")
    if power.num_draws_most != power.num_draws:
        draws = f"{power.num_draws} to {power.num_draws_most} draws"
    seeds = _number(power.num_seeds, "seed")
    if not power.comparisons:
        yield f"draws    {draws} of the partition, {seeds} a draw; no two methods to compare"
        return
    conditions = f" under {_number(power.num_conditions, 'condition')}" if power.num_conditions > 1 else ""
    yield (
        f"draws    {draws} of the partition, {seeds} a draw, for {_number(power.comparisons, 'comparison')} of "
        f"{power.num_contenders} contenders{conditions}"
    )
    if power.num_draws < power.min_draws:
        yield (
            f"         a sign-flip test cannot reach {ALPHA:g} with {draws}, whatever the difference: "
            f"it takes {power.min_draws}, and {power.min_draws_holm} after Holm"
        )
        return
    yield f"         smallest true difference found with probability {POWER:g} at {ALPHA:g}, alone and after Holm:"
    yield (
        f"         {_or_none(power.one)} and {_or_none(power.all)} standard deviations of the paired differences"
        + ("" if power.all is not None else f" (after Holm it takes {power.min_draws_holm} draws)")
    )
    for each in power.observed:
        heading = SCORES[each.score].heading if each.score in SCORES else each.score
        among = f", {each.std_low:.3g} to {each.std_high:.3g}" if each.num_comparisons > 1 else ""
        yield (
            f"         {heading}: {_or_none(each.one)} and {_or_none(each.all)}, with the {each.std:.3g} of "
            f"{_number(each.num_comparisons, 'finished comparison')}{among}"
        )
    if not power.observed:
        yield "         in units of a score: give --report=<finished runs>, of at least two draws and two methods"


def _or_none(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _range(seconds: Seconds) -> str:
    return f"{readable_seconds(seconds.estimate)} ({readable_seconds(seconds.low)} to {readable_seconds(seconds.high)})"


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
