"""What a sweep will take and what it can show, before it runs: time, memory and storage of each kind of cell, the
smallest difference between methods that its draws can find.

Nothing is trained and no weights are loaded. Cells that differ in seeds, draws and rates alone are one kind, of which
one is rehearsed. Times come from finished cells: those of the sweep, and the runs of --measured; without any there is
work relative to the cheapest kind. key=value picks cells as for 'fedlit sweep'.
"""

import argparse
import shlex
from collections.abc import Sequence

from fedlit.arguments import CommandParser, positive, split_targets
from fedlit.commands.endings import tell, without_traceback
from fedlit.errors import UserError

EXAMPLES = """\
examples:
  fedlit plan scl_table2
  fedlit plan demo --measured 0 --jobs 2
  fedlit plan own.yaml --measured runs/own/own-fedit-seed0 --devices 4 --json
  fedlit plan own.yaml --report runs/pilot
"""


def main(words: Sequence[str]) -> int:
    """Print the plan and return the exit code."""
    parser = CommandParser("plan", __doc__, EXAMPLES)
    parser.add_argument("targets", nargs="*", metavar="SWEEP|key=value", help="a sweep, by its name or its file")
    parser.add_argument(
        "--measured",
        action="append",
        default=[],
        metavar="FOLDER|CELL",
        help="a finished run, or the number of a finished cell, whose times are scaled; may be repeated",
    )
    parser.add_argument(
        "--report",
        action="append",
        default=[],
        metavar="RUNS|SWEEP",
        help="finished runs that tell how much scores differ between draws (default: the sweep's own); may be repeated",
    )
    parser.add_argument("--jobs", type=positive, default=1, metavar="K", help="cells at a time (default: 1)")
    parser.add_argument("--devices", type=positive, default=1, metavar="N", help="processes of a cell (default: 1)")
    parser.add_argument("--json", action="store_true", help="all numbers as JSON")
    return without_traceback(lambda: _plan(parser.parse(words)))


def _plan(options: argparse.Namespace) -> int:
    targets, overrides = split_targets(options.targets)
    if len(targets) > 1:
        raise UserError(f"{targets[1]} is a second name beside {targets[0]}; give one sweep, then key=value")
    from fedlit.config import load_sweep  # noqa: PLC0415  so that --help comes at once
    from fedlit.lab.sweeps.records import remembered  # noqa: PLC0415

    sweep = load_sweep(targets[0])
    if kept := remembered(sweep, overrides):
        tell(f"with the arguments of the last start: {shlex.join(kept)}")
    from fedlit.budget.sweep_plan import plan_sweep  # noqa: PLC0415  torch, after the mistakes in the sweep

    plan = plan_sweep(
        targets[0],
        overrides,
        measured=options.measured,
        reports=options.report,
        jobs=options.jobs,
        devices=options.devices,
    )
    from fedlit.commands.plan_shown import as_json, show  # noqa: PLC0415  rich

    if options.json:
        print(as_json(plan))
    else:
        show(plan)
    return 0
