"""Write a federation as an app of another framework, for real sites.

The app's client trains on its site's own rows with fedlit's local trainer. Its server aggregates with the method's
rule, to the last bit as `fedlit run` does for the same clients. Only tensors that the method trains travel, and what a
rule folds, as factors. fedlit and the framework are to be installed on the server and on all sites.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fedlit.arguments import CommandParser
from fedlit.commands.endings import tell, without_traceback
from fedlit.config.keys import nearest, show
from fedlit.errors import UserError
from fedlit.process.storage import user_path
from fedlit.process.whole_folder import require_new

if TYPE_CHECKING:
    from fedlit.config import RunConfig

TARGETS = ("flower", "nvflare")

EXAMPLES = """\
examples:
  fedlit export runs/fedsa-medquad-tinyllama-seed0 --to flower --out app/
  fedlit export my.yaml method=fedex_lora num_clients=3 --to nvflare --out app/
"""


def main(words: Sequence[str]) -> int:
    """Write the app, print where it is, and return the exit code."""
    parser = CommandParser("export", __doc__, EXAMPLES)
    parser.add_argument("what", nargs="+", metavar="RUN|CONFIG", help="folder of a run, or what 'fedlit run' takes")
    parser.add_argument("--to", required=True, metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--out", required=True, type=user_path, metavar="FOLDER", help="the new app")
    return without_traceback(lambda: _export(parser.parse(words)))


def _export(options: argparse.Namespace) -> int:
    if options.to not in TARGETS:
        raise UserError(
            f"--to={show(options.to)} is no framework{nearest(options.to, TARGETS)} Valid: {', '.join(TARGETS)}"
        )
    require_new(options.out, "--out")
    config = _config(options.what)
    from fedlit.methods import build_method  # noqa: PLC0415  torch: seconds, after all mistakes of the command line
    from fedlit.outside.loading import load_plugins  # noqa: PLC0415

    load_plugins(config.plugins)
    target = import_module(f"fedlit.sites.apps.{options.to}").TARGET
    for line in target.write(config, build_method(config), options.out):
        tell(f"note: {line}")
    print(f"{options.out} (tested with {target.package} {target.tested}; see its README.md)")
    return 0


def _config(words: Sequence[str]) -> "RunConfig":
    """Return the configuration of a run's folder, or of what `fedlit run` takes."""
    from fedlit.config import load_config, load_yaml  # noqa: PLC0415
    from fedlit.store.folder import with_own_template  # noqa: PLC0415
    from fedlit.store.layout import read_text  # noqa: PLC0415

    if len(words) > 1 or not Path(words[0]).is_dir():
        return load_config(words)
    folder = Path(words[0])
    stored = folder / "config.yaml"
    if not stored.is_file():
        raise UserError(f"{folder} is no run folder (no config.yaml); give the folder of a run, or a configuration")
    return with_own_template(load_yaml(read_text(stored), str(stored)), folder)
