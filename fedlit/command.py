"""From the words of a command line to an exit code: what `experiments/federate.py` and every cell of a sweep run, and
how every command tells a user's mistake.
"""

import os
import sys
from collections.abc import Callable, Sequence

from fedlit.config import check_launcher, load_config, no_effect_warnings
from fedlit.errors import DivergenceError, UserError
from fedlit.inputs import gather_inputs
from fedlit.interrupt import STOPPED_EXIT_CODE, StopRequest

USER_ERROR_EXIT_CODE = 2
DIVERGED_EXIT_CODE = 3


def is_first_process() -> bool:
    """Tell whether this is the process that speaks, before there is a process group."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0"))) == "0"


def tell(line: str) -> None:
    """Write a line to the console beside the results."""
    sys.stderr.write(f"{line}\n")


def without_traceback(action: Callable[[], int]) -> int:
    """Return the exit code of an action; a user's mistake is one line."""
    try:
        return action()
    except UserError as error:
        tell(f"error: {error}")
        return USER_ERROR_EXIT_CODE


def run_federation(arguments: Sequence[str]) -> int:
    """Run the federation that `arguments` (`key=value`) describe and return the exit code of this process."""
    stop = StopRequest()
    stop.install()  # before the slow imports, so that an early signal is not lost
    first = is_first_process()
    try:
        config = load_config(arguments)
        check_launcher(os.environ, config.compute.precision)
        for warning in no_effect_warnings(config) if first else ():
            tell(f"warning: {warning}")
        inputs = gather_inputs(config)
        from fedlit.launch import StoppedBySignal, dry_run, federate  # noqa: PLC0415  torch and Fabric: seconds

        try:
            if not config.dry_run:
                federate(inputs, stop)
            elif first:
                dry_run(inputs)
        except StoppedBySignal as reason:
            tell(f"stopped: {reason}") if first else None
            return STOPPED_EXIT_CODE
    except UserError as error:
        tell(f"error: {error}") if first else None
        return USER_ERROR_EXIT_CODE
    except DivergenceError as error:
        tell(f"diverged: {error}") if first else None
        return DIVERGED_EXIT_CODE
    return 0
