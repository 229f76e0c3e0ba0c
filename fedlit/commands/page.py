"""One HTML page about a sweep, or about run folders: curves per round with seed bands, methods against one another and
against bytes, who held which labels, the table, and how every run stands.

The page is one file, opens from disk and needs no network. Nothing is trained, and missing runs are told as missing, so
it may be made at any time. Of a sweep, key=value picks cells as for 'fedlit sweep'. With --wandb the same is saved as
views of the runs' W&B project instead, which needs a login.
"""

import argparse
import shlex
from collections.abc import Sequence

from fedlit.arguments import CommandParser, require_file, split_targets, writing
from fedlit.commands.endings import tell, without_traceback
from fedlit.errors import UserError
from fedlit.process.storage import user_path

EXAMPLES = """\
examples:
  fedlit page scl_table2
  fedlit page fedex_glue data=glue/cola --output=cola.html
  fedlit page runs/medquad runs/dolly
  fedlit page scl_table2 --wandb
"""


def main(words: Sequence[str]) -> int:
    """Write the page, print its path, and return the exit code."""
    parser = CommandParser("page", __doc__, EXAMPLES)
    parser.add_argument("targets", nargs="*", metavar="SWEEP|RUNS|key=value", help="a sweep, or folders of runs")
    parser.add_argument("--output", type=user_path, metavar="FILE", help="default: dashboard.html beside the runs")
    parser.add_argument("--wandb", action="store_true", help="save views in the runs' W&B project, no page")
    parser.add_argument("--project", metavar="NAME", help="with --wandb: W&B project (default: that of the runs)")
    parser.add_argument("--entity", metavar="NAME", help="with --wandb: W&B user or team (default: the login's own)")
    return without_traceback(lambda: _build(parser.parse(words)))


def _build(options: argparse.Namespace) -> int:
    for name in ("project", "entity"):
        if getattr(options, name) and not options.wandb:
            raise UserError(f"--{name}={getattr(options, name)} belongs to --wandb; add it, or leave --{name} out")
    targets, overrides = split_targets(options.targets)
    path = options.output
    require_file(path, "--output")
    from fedlit.lab.analysis.collection import collect  # noqa: PLC0415  so that --help comes at once

    collection = collect(targets, overrides)
    if collection.remembered:
        tell(f"with the arguments of the last start: {shlex.join(collection.remembered)}")
    for note in collection.notes:
        tell(note)
    if options.wandb:
        from fedlit.lab.dashboard.workspace import build_workspace  # noqa: PLC0415

        print(build_workspace(collection, project=options.project, entity=options.entity))
        return 0
    from fedlit.lab.dashboard.page import write_page  # noqa: PLC0415

    path = path or collection.folder / "dashboard.html"
    with writing(path, "--output"):
        write_page(collection, path)
    print(path)
    return 0
