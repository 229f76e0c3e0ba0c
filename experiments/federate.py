"""Run one federation: `fabric run experiments/federate.py data=... method=...`; --help lists every option."""

import os
import sys

from fedlit.config import check_launcher, help_text, load_config, no_effect_warnings
from fedlit.errors import DivergenceError, UserError
from fedlit.inputs import gather_inputs
from fedlit.interrupt import STOPPED_EXIT_CODE, StopRequest

USER_ERROR_EXIT_CODE = 2
DIVERGED_EXIT_CODE = 3


def main(arguments: list[str]) -> int:
    """Run the federation that `arguments` describe and return the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(help_text())
        return 0
    stop = StopRequest()
    stop.install()  # before the slow imports, so that an early signal is not lost
    first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0"))) == "0"
    try:
        config = load_config(arguments)
        check_launcher(os.environ, config.compute.precision)
        for warning in no_effect_warnings(config) if first else ():
            print(f"warning: {warning}", file=sys.stderr)
        inputs = gather_inputs(config)
        from fedlit.launch import StoppedBySignal, dry_run, federate  # noqa: PLC0415  torch and Fabric: seconds

        try:
            if not config.dry_run:
                federate(inputs, stop)
            elif first:
                dry_run(inputs)
        except StoppedBySignal as reason:
            print(f"stopped: {reason}", file=sys.stderr) if first else None
            return STOPPED_EXIT_CODE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr) if first else None
        return USER_ERROR_EXIT_CODE
    except DivergenceError as error:
        print(f"diverged: {error}", file=sys.stderr) if first else None
        return DIVERGED_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
