"""Run a configuration from the process group to the final table."""

import logging
import warnings

import transformers
from rich.console import Console

from fedlit import communication
from fedlit.assembly import assemble, make_plan
from fedlit.callbacks import Callback
from fedlit.callbacks.console import ConsoleReport
from fedlit.callbacks.loggers import make_loggers
from fedlit.callbacks.plots import RunPlots
from fedlit.config import RunConfig
from fedlit.federation import Federation, StoppedBySignal
from fedlit.inputs import Inputs
from fedlit.interrupt import StopRequest
from fedlit.memory import keep_freed_memory
from fedlit.partition.shards import partition_record
from fedlit.sizing import describe_sizes

__all__ = ["StoppedBySignal", "dry_run", "federate"]


def federate(inputs: Inputs, stop: StopRequest) -> Federation:
    """Run or resume one federation on every process of the group and leave the group.

    Raises:
        UserError: a mistake in the method or the model, before anything is written.
        StoppedBySignal, DivergenceError: as Federation.run.
    """
    config = inputs.config
    quieten()
    keep_freed_memory()
    plan = make_plan(inputs)
    fabric = communication.launch(config.compute)
    try:
        federation, summary = assemble(plan, fabric)
        federation.stop = stop
        if communication.process_index() == 0:
            record = partition_record(
                inputs.rows, inputs.shards, config.data, labels=inputs.labels, own_test_rows=inputs.own_test_rows
            )
            federation.folder.prepare(record, summary.device)
            federation.callbacks = _callbacks(config, federation)
        communication.barrier()
        try:
            notices = federation.resume()
            federation.tell(lambda callback: callback.on_start(summary, federation.folder.records(), notices))
            federation.run()
            federation.export()
            federation.tell(lambda callback: callback.on_end(federation.folder.records()))
        finally:
            federation.tell(lambda callback: callback.close())
    finally:
        communication.shutdown()
    return federation


def quieten() -> None:
    """Keep the libraries' own progress reports off the console, where they would stand between the rounds' lines."""
    for name in ("lightning.fabric", "lightning.pytorch"):  # the latter takes over the former's when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="The .srun. command is available on your system but is not used")


def _callbacks(config: RunConfig, federation: Federation) -> list[Callback]:
    return [
        ConsoleReport(Console(), progress=config.logging.progress),
        RunPlots(federation.folder.plots),
        *make_loggers(config, federation.folder.path),
    ]


def dry_run(inputs: Inputs) -> None:
    """Print sizes, bytes and memory of a run; the model is built without its weights."""
    quieten()
    devices, num_nodes = communication.group_shape(inputs.config.compute)
    console = Console()
    for line in describe_sizes(make_plan(inputs), devices * num_nodes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
