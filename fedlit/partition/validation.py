"""The validation part of every client: training rows that choose rounds and rates, and train nothing."""

from collections.abc import Sequence
from dataclasses import replace

from fedlit.config.schema import DataConfig, PartitionConfig
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.partition.shards import Shard
from fedlit.partition.splitting import draw_validation_prompts
from fedlit.tasks.registry import task_spec


def split_off_validation(
    shards: Sequence[Shard], rows: Sequence[Row], data: DataConfig, partition: PartitionConfig, seed: int
) -> list[Shard]:
    """Return the shards with a part of their training rows as validation rows; the test parts stay as they are.

    A client's validation part has max(ceil(validation_fraction * n), 1) of its n rows, and more or fewer as its test
    part has (`make_shards`). No prompt is in two of training, validation and test, over all clients.
    Streams: (seed, "validation", client_id).

    Raises:
        UserError: a client that cannot have both parts.
    """
    identity = task_spec(data.task).identity
    prompts = [identity(row, data) for row in rows]
    parts = [shard.train for shard in shards]
    num_rows = [len(shard.train) + len(shard.test) for shard in shards]
    drawn = draw_validation_prompts(parts, prompts, num_rows, partition, seed)
    result = []
    for shard in shards:
        validation = tuple(i for i in shard.train if prompts[i] in drawn)
        train = tuple(i for i in shard.train if prompts[i] not in drawn)
        assert train, f"client {shard.client_id} has no training row"
        if not validation:
            raise UserError(
                f"client {shard.client_id}: its {len(shard.train)} rows that are not tested have too few prompts for "
                f"partition.validation_fraction={partition.validation_fraction}, since training and validation share "
                "none; use fewer clients, or give data.validation_path=<file>"
            )
        result.append(replace(shard, train=train, validation=validation))
    return result
