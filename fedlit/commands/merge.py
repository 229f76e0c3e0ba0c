"""Merge the result of a run into one model folder, with its tokenizer or image processor: transformers loads it alone.

An adapter is added to the run's backbone: every merged weight is computed in float64 and rounded once. A result that is
a whole model already is copied, or converted to --dtype. Nothing is overwritten.
"""

import argparse
from collections.abc import Sequence

from fedlit.arguments import CommandParser, integer, writing
from fedlit.commands.endings import without_traceback
from fedlit.config.keys import nearest, show
from fedlit.errors import UserError
from fedlit.process.storage import user_path
from fedlit.process.whole_folder import require_new

DTYPES = ("float32", "bfloat16", "float16")

EXAMPLES = """\
examples:
  fedlit merge runs/fedit-medquad-tinyllama-seed0
  fedlit merge runs/medquad --output models/medquad --dtype bfloat16
"""


def main(words: Sequence[str]) -> int:
    """Write the model, print where it is and how it is loaded, and return the exit code."""
    parser = CommandParser("merge", __doc__, EXAMPLES)
    parser.add_argument("run", type=user_path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--output", type=user_path, metavar="FOLDER", help="default: RUN/merged")
    parser.add_argument("--dtype", metavar="TYPE", help=f"{', '.join(DTYPES)} (default: float32; a whole model's own)")
    parser.add_argument("--client", type=integer, metavar="N", help="whose, where every client has its own result")
    parser.add_argument("--unfinished", action="store_true", help="of a run that is not done: its newest checkpoint")
    return without_traceback(lambda: _merge(parser.parse(words)))


def _merge(options: argparse.Namespace) -> int:
    if options.dtype is not None and options.dtype not in DTYPES:
        raise UserError(
            f"--dtype={show(options.dtype)} is no type{nearest(options.dtype, DTYPES)} Valid: {', '.join(DTYPES)}"
        )
    from fedlit.exported.found import find_result  # noqa: PLC0415  so that --help comes at once

    result = find_result(options.run, unfinished=options.unfinished, client_id=options.client)
    default = options.run / "merged"
    if options.client is not None:
        default /= f"client-{options.client:05d}"
    output = options.output or default
    require_new(output, "--output")
    from fedlit.exported.merging import merge_result  # noqa: PLC0415  torch: seconds, after all mistakes
    from fedlit.exported.unfinished import settled  # noqa: PLC0415
    from fedlit.models.progress import without_progress_bars  # noqa: PLC0415

    without_progress_bars()
    with settled(result) as settled_result, writing(output, "--output"):
        merged = merge_result(settled_result, output, options.dtype)
    changed = f", {merged.num_layers} layers changed" if merged.num_layers else ", a whole model as the run exported it"
    print(f"{output} ({merged.dtype}{changed})")
    for line in merged.loads:
        print(f"  {line}")
    return 0
