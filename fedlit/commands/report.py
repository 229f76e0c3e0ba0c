"""The table of a sweep, or of run folders: our scores over seeds, beside the published ones where there are any.

It writes table.md, table.tex (booktabs), table.csv, the tests and statistics over draws of the partition (wilcoxon.csv,
differences.csv, shares.csv, examples.csv, statistics.tex) and figures as PDF and PNG. Nothing is trained: runs that are
missing are dashes, runs that are not done are marked. Of a sweep, key=value picks cells as for 'fedlit sweep'.
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
  fedlit report scl_table2
  fedlit report fedex_glue data=glue/cola --round=best --output=tables/cola
  fedlit report runs/medquad --score rouge_l --score loss
  fedlit report own.yaml --best local.lr --round=best
"""


def main(words: Sequence[str]) -> int:
    """Write the table, print it, and return the exit code."""
    parser = CommandParser("report", __doc__, EXAMPLES)
    parser.add_argument("targets", nargs="*", metavar="SWEEP|RUNS|key=value", help="a sweep, or folders of runs")
    parser.add_argument("--output", type=user_path, metavar="FOLDER", help="default: report/ beside the runs")
    parser.add_argument("--score", action="append", default=[], metavar="NAME", help="a score to show; may be repeated")
    parser.add_argument("--round", default="last", metavar="last|best", help="round that is shown (default: last)")
    parser.add_argument(
        "--best",
        action="append",
        default=[],
        metavar="KEY",
        help="show the best value of this axis only, such as local.lr, chosen on validation over seeds in the round "
        "that is shown; may be repeated (default: 'best' in the sweep's file; none: all values)",
    )
    parser.add_argument(
        "--reference",
        default="",
        metavar="METHOD",
        help="the method that all are compared with over draws, beside the best (default: fedit, or the first)",
    )
    parser.add_argument("--no-figures", action="store_true", help="tables only")
    return without_traceback(lambda: _report(parser.parse(words)))


def _report(options: argparse.Namespace) -> int:
    if options.round not in ("last", "best"):
        raise UserError(f"--round={options.round} is no round to show; give last or best")
    targets, overrides = split_targets(options.targets)
    if options.output and options.output.exists() and not options.output.is_dir():
        raise UserError(f"--output={options.output} is a file; give a folder")
    from fedlit.lab.analysis.best_axis import at_best  # noqa: PLC0415  so that --help comes at once
    from fedlit.lab.analysis.collection import collect  # noqa: PLC0415
    from fedlit.lab.report.layout import check_scores  # noqa: PLC0415

    collection = collect(targets, overrides)
    if collection.remembered:
        tell(f"with the arguments of the last start: {shlex.join(collection.remembered)}")
    check_scores(collection, options.score)
    axes = [axis for axis in options.best if axis != "none"]
    if not options.best:  # those of the file, where more than one value is picked
        axes = [axis for axis in collection.best if axis in collection.varied]
    if axes:
        collection, _ = at_best(collection, axes, options.round)
    for note in collection.notes:
        tell(note)
    from fedlit.lab.report.writing import write_report  # noqa: PLC0415  scipy and matplotlib: seconds, after all mistakes

    folder = options.output or collection.folder / "report"
    with writing(folder, "--output"):
        text = write_report(
            collection,
            folder,
            scores=options.score,
            which=options.round,
            reference=options.reference,
            figures=not options.no_figures,
        )
    print(text)
    print(folder)
    return 0
