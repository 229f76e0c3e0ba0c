"""The plan of a sweep: its cells in kinds, what each takes, how long all of them run, and what they can show."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.budget.dry_runs import DryRun, DryRuns
from fedlit.budget.kinds import Kind, axes_of, kinds_of
from fedlit.budget.measured import Times, start_s, times_in, times_of
from fedlit.budget.power import Power, power_of, repeated
from fedlit.budget.storage import folder_bytes
from fedlit.budget.timing import Forecast, Measured, Seconds, forecast, makespan, spread_of
from fedlit.config import Cell, RunConfig, load_sweep, read_stored
from fedlit.config.reading import read_file
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection, collect
from fedlit.lab.sweeps.cells import load_cell
from fedlit.lab.sweeps.placing import placed
from fedlit.process.storage import user_path

BUSY = ("done", "running")


@dataclass(frozen=True, kw_only=True, slots=True)
class KindPlan:
    """One kind of cells. num_done, num_left: of its cells. relative: its work, the least of any kind being 1.

    stays_bytes, peak_bytes: of one run folder; measured where a folder of the kind is there (`is_storage_measured`).
    forecast: None without anything measured.
    """

    name: str
    num_cells: int
    num_done: int
    num_left: int
    num_trained: int
    num_steps: int
    train_flops: float
    evaluate_flops: float
    relative: float
    uplink_bytes: int
    downlink_bytes: int
    memory_bytes: dict[str, int]
    stays_bytes: int
    peak_bytes: int
    is_storage_measured: bool
    forecast: Forecast | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """All of it. states: cells by state. measured: runs that the times are from. spread: see timing.spread_of.

    work: of the cells that are left, in units of the cheapest kind. device_s, wall_s: of the cells that are left.
    start_s: of a process before its run begins, which is in the times; None where nobody knows. stays_bytes: of all
    cells. peak_bytes: at the most, with `jobs` at a time.
    """

    name: str
    folder: Path
    num_cells: int
    states: dict[str, int]
    axes: dict[str, list[Any]]
    kinds: tuple[KindPlan, ...]
    work: float
    jobs: int
    devices: int
    threads: int
    num_cores: int | None
    measured: tuple[Times, ...]
    spread: float | None
    start_s: float | None
    device_s: Seconds | None
    wall_s: Seconds | None
    stays_bytes: int
    peak_bytes: int
    power: Power
    notes: tuple[str, ...]


def plan_sweep(
    name: str,
    overrides: Sequence[str] = (),
    *,
    measured: Sequence[str] = (),
    reports: Sequence[str] = (),
    jobs: int = 1,
    devices: int = 1,
) -> SweepPlan:
    """Return the plan of a sweep.

    Args:
        name: of the sweep, or its file. overrides: the user's own arguments.
        measured: folders of finished runs, or numbers of finished cells; beside the sweep's own.
        reports: a sweep or folders of runs whose scores tell how much differences vary, in place of the sweep's own.
        jobs: cells at a time. devices: of each cell.

    Raises:
        UserError: a mistake in the sweep or in a cell; nothing measured where it should be.
    """
    collection, sweep = collect([name], overrides), load_sweep(name)
    cells = [entry.cell for entry in placed(sweep.cells([*collection.remembered, *overrides]))]
    states = [entry.status.state for entry in collection.entries]
    given = _named(measured, cells)  # its mistakes before the dry runs
    seen = collect(reports) if reports else collection
    kinds, dry_runs = kinds_of(cells), DryRuns()
    found = [dry_runs.of(_config(kind.first, cells[kind.first])) for kind in kinds]
    runs = [*_own(collection, kinds, found), *_given(given, kinds, found, dry_runs)]
    runs = list({each.times.folder.resolve(): each for each in runs}.values())
    start = start_s([entry.status for entry in collection.entries if entry.status.state == "done"])
    least = min(each.work.flops for each in found)
    forecasts = [
        forecast(place, each.work, runs, num_processes=devices, start_s=start) if runs else None
        for place, each in enumerate(found)
    ]
    plans = tuple(
        _kind_plan(kind, each, states, collection, relative=each.work.flops / least if least else 1.0, forecast=told)
        for kind, each, told in zip(kinds, found, forecasts, strict=True)
    )
    left = [place for place, state in enumerate(states) if state not in BUSY]
    of_cell = {cell: place for place, kind in enumerate(kinds) for cell in kind.cells}
    return SweepPlan(
        name=sweep.name,
        folder=cells[0].folder.parent,
        num_cells=len(cells),
        states={state: states.count(state) for state in dict.fromkeys(states)},
        axes=axes_of(cells),
        kinds=plans,
        work=sum(plans[of_cell[cell]].relative for cell in left),
        jobs=jobs,
        devices=devices,
        threads=found[0].config.compute.threads,
        num_cores=os.cpu_count() if _on_cpu(found, runs) else None,
        measured=tuple(each.times for each in runs),
        spread=spread_of(runs),
        start_s=start,
        **_totals(plans, [of_cell[cell] for cell in left], jobs, devices),
        power=power_of(
            [_repeated(cell, found[of_cell[place]].config) for place, cell in enumerate(cells)], collection, seen
        ),
        notes=collection.notes,
    )


def _config(index: int, cell: Cell) -> RunConfig:
    config = load_cell(index, cell)
    if config.dry_run:
        raise UserError("dry_run=true belongs to fedlit run; a plan is a dry run of every kind of cell; leave it out")
    return config


def _repeated(cell: Cell, config: RunConfig) -> Any:
    return repeated(cell.settings, config.partition.seed, config.seed)


def _own(collection: Collection, kinds: Sequence[Kind], found: Sequence[DryRun]) -> list[Measured]:
    """Return the sweep's own finished cells."""
    measured = []
    for place, (kind, dry_run) in enumerate(zip(kinds, found, strict=True)):
        for cell in kind.cells:
            entry = collection.entries[cell]
            times = times_in(entry.folder, entry.status, entry.records) if entry.status.state == "done" else None
            if times is not None:
                measured.append(Measured(work=dry_run.work, times=times, kind=place))
    return measured


def _named(words: Sequence[str], cells: Sequence[Cell]) -> list[tuple[int | None, Times]]:
    """Return the runs that the user names, by the number of a cell, its name or a folder, with the cell's place."""
    found = []
    by_name = {cell.name: place for place, cell in enumerate(cells)}
    by_folder = {cell.folder.resolve(): place for place, cell in enumerate(cells)}
    for word in words:
        place = int(word) if word.isascii() and word.isdecimal() else by_name.get(word)
        if place is not None and place >= len(cells):
            raise UserError(f"--measured={word}: there is no cell {word}; give 0 to {len(cells) - 1}, or a run folder")
        folder = user_path(word) if place is None else cells[place].folder
        found.append((by_folder.get(folder.resolve(), place), times_of(folder)))
    return found


def _given(
    given: Sequence[tuple[int | None, Times]], kinds: Sequence[Kind], found: Sequence[DryRun], dry_runs: DryRuns
) -> list[Measured]:
    """Return the same with their work: that of their kind, or of a run from elsewhere by a dry run of its own."""
    measured = []
    for cell, times in given:
        if cell is not None:
            kind = next(number for number, each in enumerate(kinds) if cell in each.cells)
            measured.append(Measured(work=found[kind].work, times=times, kind=kind))
        else:
            path = times.folder / "config.yaml"
            config = read_stored(read_file(path, str(path)), str(path))
            measured.append(Measured(work=dry_runs.of(config).work, times=times))
    return measured


def _kind_plan(
    kind: Kind,
    dry_run: DryRun,
    states: Sequence[str],
    collection: Collection,
    *,
    relative: float,
    forecast: Forecast | None,
) -> KindPlan:
    done = [collection.entries[cell].folder for cell in kind.cells if states[cell] == "done"]
    sizes, work, storage = dry_run.sizes, dry_run.work, dry_run.storage
    seen = folder_bytes(done[0]) if done else None
    return KindPlan(
        name=kind.name,
        num_cells=len(kind.cells),
        num_done=len(done),
        num_left=sum(states[cell] not in BUSY for cell in kind.cells),
        num_trained=sizes.num_trainable,
        num_steps=work.num_steps,
        train_flops=work.train.flops,
        evaluate_flops=work.evaluate.flops,
        relative=relative,
        uplink_bytes=sizes.uplink_bytes * dry_run.cohort_size,
        downlink_bytes=sizes.downlink_bytes * dry_run.cohort_size,
        memory_bytes=sizes.memory_bytes,
        stays_bytes=storage.stays if seen is None else seen,
        peak_bytes=storage.peak if seen is None else seen + storage.peak - storage.stays,
        is_storage_measured=seen is not None,
        forecast=forecast,
    )


def _totals(plans: Sequence[KindPlan], left: Sequence[int], jobs: int, devices: int) -> dict[str, Any]:
    """Return time and bytes of the sweep; `left` is the kind of each cell that is still to run, in their order."""
    stays = sum(kind.num_cells * kind.stays_bytes for kind in plans)
    beyond = sorted((plans[place].peak_bytes - plans[place].stays_bytes for place in left), reverse=True)
    totals: dict[str, Any] = {"stays_bytes": stays, "peak_bytes": stays + sum(beyond[:jobs])}
    lengths = [plans[place].forecast for place in left]
    known = [each.seconds for each in lengths if each is not None]
    if not known:
        return {**totals, "device_s": None, "wall_s": None}
    limits = {name: [getattr(each, name) for each in known] for name in ("estimate", "low", "high")}
    return {
        **totals,
        "device_s": Seconds(**{name: devices * sum(values) for name, values in limits.items()}),
        "wall_s": Seconds(**{name: makespan(values, jobs) for name, values in limits.items()}),
    }


def _on_cpu(found: Sequence[DryRun], runs: Sequence[Measured]) -> bool:
    """Tell whether cells run on CPUs, as far as the configurations or the measured runs say so."""
    if runs:
        return all(each.times.device == "cpu" for each in runs)
    return all(each.config.compute.accelerator == "cpu" for each in found)
