"""One method under dropout, deadlines and FedBuff: a small table of finished runs, and a picture of it.

    python curves.py runs/clients
    python curves.py

The first reads run folders and writes the table, the second draws the picture from the table alone. A line is the mean
over the draws of the partition, its band goes from the lowest to the highest.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Entry, collect
from fedlit.lab.analysis.palette import INK, MUTED, PALETTE
from fedlit.lab.analysis.plots import save, style

HERE = Path(__file__).resolve().parent
TABLE = HERE / "results" / "curves.csv"
PICTURE = HERE.parents[1] / "docs" / "howto" / "cohorts.png"
COLUMNS = ("setting", "draw", "round", "loss", "simulated_s", "arrived", "late", "lost")


def setting_of(availability: str, options: Mapping[str, Any]) -> str:
    """Return how the picture calls a setting."""
    if availability == "bernoulli":
        return f"dropout {options['dropout']:.0%}"
    if availability == "buffered":
        return f"FedBuff, {options['concurrency']} at a time"
    if "deadline_s" not in options:
        return "all are waited for"
    return f"{options['deadline_s']} s, late ones {'used' if options.get('late') == 'use' else 'dropped'}"


def rows_of(entry: Entry) -> list[dict[str, Any]]:
    """Return a line for each scored round of a run.

    Raises:
        UserError: it is not done.
    """
    config = entry.config
    if config is None or entry.status.state != "done":
        raise UserError(f"{entry.folder}: not done; leave it out, or go on with it")
    times = list(accumulate(record.get("clock/round_s", 0.0) for record in entry.records))
    late = list(accumulate(len(record.get("clients/late", ())) for record in entry.records))
    lost = list(accumulate(len(record.get("clients/lost", ())) for record in entry.records))
    arrived = list(accumulate(len(record.get("clients/arrived", ())) for record in entry.records))
    return [
        {
            "setting": setting_of(config.cohort.availability, config.cohort.options),
            "draw": config.partition.seed,
            "round": record["round"],
            "loss": round(record["global/loss"], 5),
            "simulated_s": round(times[place], 3) if config.cohort.availability != "bernoulli" else None,
            "arrived": arrived[place],
            "late": late[place],
            "lost": lost[place],
        }
        for place, record in enumerate(entry.records)
        if "global/loss" in record
    ]


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw loss against rounds under dropout, and against the simulated clock under deadlines."""
    figure = Figure(figsize=(7.6, 3.6), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1, 1.25]})
    everybody = "all are waited for"
    names = [everybody, *(name for name in dict.fromkeys(table["setting"]) if name != everybody)]
    dropouts = [everybody, *(name for name in names if name.startswith("dropout"))]
    timed = [name for name in names if not name.startswith("dropout")]
    _panel(left, table, dropouts, "round", "rounds", {everybody: "dropout 0%"})
    _panel(right, table, timed, "simulated_s", "simulated minutes", {}, scale=60.0)
    left.set_ylabel("test loss (nats a token), lower is better", fontsize=8, color=MUTED)
    left.set_title("who stays away", loc="left", fontsize=9, color=INK)
    right.set_title("who is late", loc="left", fontsize=9, color=INK)
    save(figure, path)


def _panel(
    axes: Axes,
    table: pd.DataFrame,
    names: Sequence[str],
    column: str,
    label: str,
    called: Mapping[str, str],
    scale: float = 1.0,
) -> None:
    style(axes)
    for place, name in enumerate(names):
        mine = table[table["setting"] == name]
        groups = mine.groupby("round")
        x, y = groups[column].mean() / scale, groups["loss"]
        colour, line = PALETTE[place % len(PALETTE)], "--" if "used" in name else "-"
        axes.plot(x, y.mean(), color=colour, linestyle=line, linewidth=1.4, label=called.get(name, name))
        axes.fill_between(x, y.min(), y.max(), color=colour, alpha=0.12, linewidth=0)
    axes.set_xlabel(label, fontsize=8, color=MUTED)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)


def main(words: Sequence[str]) -> int:
    """Write the table, if there are run folders, and draw the picture; return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="run folders, or folders of them; none: draw what the table holds")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    told = parser.parse_args(words)
    try:
        if told.runs:
            rows = [row for entry in collect(told.runs).entries for row in rows_of(entry)]
            table = pd.DataFrame(rows, columns=COLUMNS).sort_values(["setting", "draw", "round"])
            told.table.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(told.table, index=False, lineterminator="\n")
        draw(pd.read_csv(told.table), told.picture)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
