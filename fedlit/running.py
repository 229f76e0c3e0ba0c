"""From a configuration, and what was given beside it from Python, to the end of a run: the one path of the command line
and of `fedlit.run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedlit.config import RunConfig, check_launcher, no_effect_warnings, privacy_warnings
from fedlit.config.analysis import analysis_warnings
from fedlit.process.interrupt import StopRequest
from fedlit.process.quick_imports import quick_imports

if TYPE_CHECKING:
    from fedlit.data.own_rows import OwnRows
    from fedlit.round.loop import Federation


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a caller in Python gives beside the configuration; the command line gives none of it.

    rows, test_rows, validation_rows: in place of data.path, data.test_path and data.validation_path. model, tokenizer:
    objects in place of model.path and model.tokenizer. callbacks: of `fedlit.Callback`. console: the run reports on
    standard output.
    """

    rows: OwnRows | None = None
    test_rows: OwnRows | None = None
    validation_rows: OwnRows | None = None
    model: Any = None
    tokenizer: Any = None
    callbacks: Sequence[Any] = ()
    console: bool = True


NOTHING = Given()


def run_to_end(
    config: RunConfig,
    stop: StopRequest,
    warn: Callable[[str], None],
    given: Given = NOTHING,
    *,
    speaks: bool = True,
    own_process: bool = False,
) -> Federation | None:
    """Run or resume a federation and return it on its last state; None after `dry_run=true`, which prints sizes.

    Args:
        config: checked.
        stop: what may end the run early.
        warn: takes each line about the configuration and the rows that a person should read.
        given: objects of Python's.
        speaks: this is the process that prints the sizes.
        own_process: nobody else's objects are in this process, which may keep what is imported out of every collection.

    Raises:
        FedlitError: as `fedlit.launch.federate`, or a mistake in the rows, told before torch is imported.
        KeyboardInterrupt: a second Ctrl-C.
    """
    check_launcher(os.environ, config.compute)
    for line in (*no_effect_warnings(config), *privacy_warnings(config), *analysis_warnings(config)):
        warn(line)
    from fedlit.inputs import gather_inputs  # noqa: PLC0415  other commands need `tell` alone, not numpy

    inputs = gather_inputs(config, given.rows, given.test_rows, given.validation_rows)
    for line in inputs.notices:
        warn(line)
    if config.dry_run:
        if speaks:
            with quick_imports(for_good=own_process):
                from fedlit.commands.rehearsal import dry_run  # noqa: PLC0415  torch, without Fabric

            dry_run(inputs)
        return None
    inputs = inputs.in_files()  # before the libraries' memory comes on top
    with quick_imports(for_good=own_process):
        from fedlit.extras import Extras  # noqa: PLC0415  torch and Fabric: seconds
        from fedlit.launch import federate  # noqa: PLC0415  as above

    extras = Extras.of(given.model, given.tokenizer, given.callbacks, console=given.console)
    return federate(inputs, stop, extras)
