"""What `fedlit sweep` shows of a sweep's cells, as tables for the terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fedlit.config import Cell, Sweep, load_config
from fedlit.config.keys import show
from fedlit.errors import UserError
from fedlit.lab.sweeps.cells import STALE, CellRun
from fedlit.lines import printable
from fedlit.scores import SCORES, main_keys, number
from fedlit.store.records import newest_first
from fedlit.store.status import STATES, RunStatus

LONGEST_VALUE = 32
"""Characters of a value in the table of cells; a prompt template is longer."""

ORDER = ("done", "running", "starting", "queued", STALE, *STATES, "not begun")
"""In which order states are counted; `starting` and `queued` are those of fedlit.lab.sweeps.queue, `stale` that of
fedlit.lab.sweeps.cells, `not begun` that of fedlit.lab.sweeps.local."""

STYLES: Mapping[str, str] = {
    "done": "green",
    "running": "cyan",
    "starting": "cyan",
    "queued": "blue",
    "requeued": "blue",
    "pending": "dim",
    "stopped": "yellow",
    STALE: "yellow",
}
"""Colours of states; the others are failures."""

FAILURES = frozenset(STATES) - STYLES.keys()

FAILURE_STYLE = "red"

NO_VALUE = "–"


def sweep_table(sweeps: Sequence[Sweep]) -> Table:
    """Return a line for each sweep: its name, the number of its cells, what it is."""
    table = _table("sweep", "cells", "")
    for sweep in sweeps:
        table.add_row(Text(printable(sweep.name)), str(len(sweep.settings())), Text(printable(sweep.comment)))
    return table


def cell_table(cells: Sequence[Cell]) -> Table:
    """Return a line for each cell: its index, its name, its values of all keys that are not the same everywhere."""
    table = _table("index", "cell", "what varies")
    keys = dict.fromkeys(key for cell in cells for key in cell.settings)
    varied = [key for key in keys if len({repr(cell.settings.get(key, ...)) for cell in cells}) > 1]
    for index, cell in enumerate(cells):
        values = [f"{key}={_short(show(cell.settings[key]))}" for key in varied if key in cell.settings]
        table.add_row(str(index), Text(printable(cell.name)), Text(printable("  ".join(values))))
    return table


def status_table(runs: Sequence[CellRun], now_s: float) -> Table:
    """Return a line for each cell: how it stands, its round, its main score after the last one, since when.

    now_s: seconds since the epoch.
    """
    scores = _main_scores(runs)
    names = {SCORES[score].heading for score, _ in scores if score in SCORES}
    score_head = names.pop() if len(names) == 1 else "score"
    table = _table("index", "cell", "state", "round", score_head, "updated", "job", "why")
    for run, (score, value) in zip(runs, scores, strict=True):
        status = run.status
        score_text = NO_VALUE if value is None else f"{value:.4f}"
        if value is not None and score_head == "score":
            score_text = f"{score} {score_text}"
        table.add_row(
            str(run.index),
            Text(printable(run.cell.name)),
            Text(status.state, style=STYLES.get(status.state, FAILURE_STYLE)),
            _round(status),
            score_text,
            NO_VALUE if status.updated_s is None else f"{duration(now_s - status.updated_s)} ago",
            Text(printable(status.job or "")),
            Text(printable(status.reason)),
        )
    return table


def number_of(cells: Sequence[object]) -> str:
    """Return `1 cell`, `12 cells`."""
    return f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"


def counts(states: Sequence[str]) -> str:
    """Return `3 done, 1 running, 8 pending`."""
    numbers = Counter(states)
    return ", ".join(f"{numbers[state]} {state}" for state in dict.fromkeys(ORDER) if numbers[state])


def duration(length_s: float) -> str:
    """Return a length of time in its largest unit: `40 s`, `3 min`, `5 h`, `2 d`."""
    for unit, unit_s, limit_s in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 172_800)):
        if length_s < limit_s:
            return f"{max(length_s, 0) / unit_s:.0f} {unit}"
    return f"{length_s / 86_400:.0f} d"


def _round(status: RunStatus) -> str:
    if status.num_rounds is None and not status.num_finished_rounds:
        return NO_VALUE
    return f"{status.num_finished_rounds} of {status.num_rounds or '?'}"


def _main_scores(runs: Sequence[CellRun]) -> list[tuple[str, float | None]]:
    """Return the score that counts in each cell and its value in the last record that has it.

    Cells whose data and evaluation are the same share one configuration, which takes a while to load.
    """
    known: dict[str, tuple[str, ...]] = {}
    found: list[tuple[str, float | None]] = []
    for run in runs:
        if not run.status.num_finished_rounds:
            found.append(("", None))
            continue
        settings = run.cell.settings
        data = repr({key: value for key, value in settings.items() if key.split(".")[0] in ("data", "eval")})
        if data not in known:
            known[data] = _main_keys(run.cell)
        found.append(_last_score(run.cell.folder, known[data]))
    return found


def _main_keys(cell: Cell) -> tuple[str, ...]:
    """Return the keys of the score that counts, none if the cell's configuration does not load here."""
    try:
        config = load_config(cell.arguments)
    except UserError:
        return ()
    return main_keys(config.data, config.eval)


def _last_score(folder: Path, keys: Sequence[str]) -> tuple[str, float | None]:
    """Return the first of some scores that a run's records have, and its last value; ('', None) if they have none, or
    are damaged.
    """
    values: dict[str, Any] = {}
    try:
        for record in newest_first(folder):
            values = {**{key: record[key] for key in keys if key in record}, **values}
            if not keys or keys[0] in values:
                break  # of many rounds and clients, the rest need not be read
    except UserError:
        pass
    key = next((key for key in keys if key in values), None)
    return ("", None) if key is None else (key.partition("/")[2], number(values[key]))


def _table(*heads: str) -> Table:
    """Return a table without frames; numbers stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", highlight=False)
    for head in heads:
        table.add_column(head, justify="right" if head in ("index", "cells", "round") else "left", overflow="fold")
    return table


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
