"""What the papers analyse, made of finished runs: deviation, rank inflation, norms, excess risk, costs and more.

It reads the records of run folders, or of a sweep, and writes one new folder: every picture as PDF and PNG for a column
of a paper, every table as CSV, and analyses.md. Nothing is trained and nothing is overwritten. What cannot be made of
these runs is said in a line, with what to run for it. Of a sweep, key=value picks cells as for 'fedlit sweep'.
"""

import argparse
import shlex
from collections.abc import Sequence

from fedlit.arguments import CommandParser, split_targets, writing
from fedlit.commands.endings import tell, without_traceback
from fedlit.errors import UserError
from fedlit.process.storage import user_path

EXAMPLES = """\
examples:
  fedlit analyse runs/fedit runs/flexlora
  fedlit analyse runs --out figures/analyses
  fedlit analyse fedex_glue data=glue/cola --only deviation,communication
"""


def main(words: Sequence[str]) -> int:
    """Write the analyses, print their folder, and return the exit code."""
    parser = CommandParser("analyse", __doc__, EXAMPLES)
    parser.add_argument("targets", nargs="*", metavar="SWEEP|RUNS|key=value", help="a sweep, or folders of runs")
    parser.add_argument("--only", default="", metavar="NAME,..", help="analyses to make (default: all)")
    parser.add_argument(
        "--out", type=user_path, metavar="FOLDER", help="new folder for all files (default: analyses/ beside the runs)"
    )
    return without_traceback(lambda: _analyse(parser.parse(words)))


def _analyse(options: argparse.Namespace) -> int:
    targets, overrides = split_targets(options.targets)
    from fedlit.lab.analyses.base import runs_of  # noqa: PLC0415  matplotlib: so that --help comes at once
    from fedlit.lab.analyses.named import chosen  # noqa: PLC0415
    from fedlit.lab.analyses.writing import require_new, write_analyses  # noqa: PLC0415
    from fedlit.lab.analysis.collection import collect  # noqa: PLC0415
    from fedlit.models.notices import without_progress_bars  # noqa: PLC0415

    analyses = chosen([name.strip() for name in options.only.split(",") if name.strip()])
    collection = collect(targets, overrides)
    folder = options.out or collection.folder / "analyses"
    require_new(folder)
    if collection.remembered:
        tell(f"with the arguments of the last start: {shlex.join(collection.remembered)}")
    for note in collection.notes:
        tell(note)
    runs = runs_of(collection)
    if not runs:
        raise UserError(f"none of the runs of {collection.name} has a record yet; run them first")
    without_progress_bars()
    with writing(folder, "--out"):
        made = write_analyses(analyses, runs, folder, collection.name, tell)
    print(folder)
    return 0 if made else 1
