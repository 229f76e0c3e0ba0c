"""The task version of a run, from its rows and its task: once, before anything is trained.

The rows are those that an evaluation scores, after `eval.max_examples` and `eval.max_clients`. Their hash does not
depend on their order, nor on columns that the task does not read. Where clients are scored each on its own rows, who
has which is part of it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedlit.assembly import evaluated_clients
from fedlit.config import RunConfig
from fedlit.data.images import digest as cell_digest
from fedlit.data.prompts import Row
from fedlit.inputs import Inputs
from fedlit.outside.record import PluginRecord, plugin_records
from fedlit.partition.shards import draw_seed
from fedlit.registry import registered
from fedlit.round.subsets import VALIDATION_STREAM, fixed_subset
from fedlit.store.task_version import TaskVersion, digest
from fedlit.tasks import Task
from fedlit.tasks.registry import task_spec


def task_version(inputs: Inputs, task: Task[Any, Any]) -> TaskVersion:
    """Return what decides the meaning of a run's scores, the same on every process and whenever the run goes on."""
    parts = {"task": inputs.config.data.task, **task.protocol_parts()}
    for name, code in _outside_code(inputs.config).items():
        parts[name] = [parts.get(name), code]
    return TaskVersion(parts={name: digest(content) for name, content in parts.items()}, rows=_scored_rows(inputs))


def _outside_code(config: RunConfig) -> Mapping[str, str]:
    """Return the code behind a task or scores from outside, by the part that it belongs to."""
    records = plugin_records(config)
    classes = {f"metrics/{name}": registered("score").get(name) for name in config.data.scores or ()}
    classes["task"] = registered("task").get(config.data.task)
    found = {}
    for name, part in classes.items():
        if part is not None:
            module = part.__module__ if isinstance(part, type) else type(part).__module__
            found[name] = next((_code(each) for each in records if f"{module}.".startswith(f"{each.module}.")), module)
    return found


def _code(record: PluginRecord) -> str:
    return record.code_sha256 or record.sha256 or record.module


def _scored_rows(inputs: Inputs) -> dict[str, str]:
    """Return the hash of the rows of each set that is scored."""
    config, found = inputs.config, {}
    evaluated = evaluated_clients(inputs)
    shards = [shard for shard in inputs.shards if shard.client_id in evaluated]
    if config.eval.on != "clients":
        found["global"] = _set(config, inputs.test_rows)
    if config.eval.on != "global":
        parts = {shard.client_id: _set(config, inputs.rows_of(shard.test), shard.client_id) for shard in shards}
        found["own"] = digest(parts)
    if not inputs.validation_rows:
        return found
    if config.eval.on == "clients" and not inputs.own_validation_rows:
        parts = {
            shard.client_id: _set(config, inputs.rows_of(shard.validation), shard.client_id, VALIDATION_STREAM)
            for shard in shards
            if shard.validation
        }
        return {**found, "validation": digest(parts)}
    return {**found, "validation": _set(config, inputs.validation_rows, purpose=VALIDATION_STREAM)}


def _set(config: RunConfig, rows: Sequence[Row], client_id: int = -1, purpose: str = "evaluation") -> str:
    """Return the hash of what is scored of a set of rows.

    Where several rows make one example, which rows a subset leaves is not known here: it is told by its draw.
    """
    spec = task_spec(config.data.task)
    columns = [*spec.columns(config.data), *([config.data.score_by] if config.data.score_by else [])]
    most, seed = config.eval.max_examples, draw_seed(config)
    if most is None or most >= len(rows):
        return rows_digest(rows, columns)
    if config.data.multiple_references:
        in_order = [row_digest(row, columns) for row in rows]
        return digest([in_order, most, seed, client_id, purpose])
    chosen = fixed_subset(range(len(rows)), most, seed, client_id, purpose=purpose)
    return rows_digest((rows[place] for place in chosen), columns)


def rows_digest(rows: Iterable[Row], columns: Sequence[str]) -> str:
    """Return the hash of rows in any order, equal ones counted."""
    return hashlib.sha256("".join(sorted(row_digest(row, columns) for row in rows)).encode()).hexdigest()


def row_digest(row: Row, columns: Sequence[str]) -> str:
    """Return the hash of a row's columns; of an image that of its pixels."""
    read = {column: row.get(column) for column in columns}
    return hashlib.sha256(json.dumps(read, sort_keys=True, default=cell_digest).encode()).hexdigest()
