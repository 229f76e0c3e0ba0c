"""The rows and who holds them, read before torch is imported: a mistake in a file is reported within a second."""

from dataclasses import dataclass

from fedlit.config import RunConfig
from fedlit.data.prompts import Row
from fedlit.data.shards import Shard, make_shards, rows_checksum
from fedlit.data.sources import load_rows
from fedlit.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A configuration with its rows and every client's shard of them."""

    config: RunConfig
    rows: list[Row]
    shards: list[Shard]


def gather_inputs(config: RunConfig) -> Inputs:
    """Read and deal the rows; a run folder of another configuration and every mistake in the data is a UserError."""
    folder = RunFolder(config)
    folder.require_same_run()
    rows = load_rows(config.data, config.seed)
    folder.require_same_rows(rows_checksum(rows))
    shards = make_shards(rows, config.data, config.partition, config.num_clients, config.seed)
    return Inputs(config=config, rows=rows, shards=shards)
