"""The shards of rows that were given from Python: one list to deal, or the rows of each client."""

from dataclasses import dataclass, field, replace

from fedlit.config.schema import RunConfig
from fedlit.data.own_rows import PARTITION, OwnRows, numbered
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.partition.shards import Shard
from fedlit.tasks.registry import task_spec


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """Rows that were given from Python, checked: those to deal, and what is known of them beforehand.

    parts: row numbers of every client; None where the rows are to be dealt. test_parts: those of them that are for
    testing; None where they are to be drawn. test_rows: a test set that belongs to no client. names: of the clients.
    """

    rows: list[Row]
    parts: list[tuple[int, ...]] | None = None
    test_parts: list[tuple[int, ...]] | None = None
    test_rows: list[Row] = field(default_factory=list)
    names: tuple[str, ...] = ()

    @property
    def train_rows(self) -> list[Row]:
        """The rows that say what is to be learned: all but the clients' own test rows, where those are given."""
        return self.rows[: sum(map(len, self.parts))] if self.parts and self.test_parts else self.rows

    @property
    def tested_rows(self) -> list[Row]:
        """The test rows that were given: a set of nobody's, or the clients' own together."""
        return self.rows[len(self.train_rows) :] or self.test_rows

    @property
    def shards(self) -> list[Shard] | None:
        """The clients' shards where both parts of each are given."""
        if self.parts is None or self.test_parts is None:
            return None
        parts = zip(self.parts, self.test_parts, self.names, strict=True)
        return [
            Shard(client_id=client, train=train, test=test, name=name)
            for client, (train, test, name) in enumerate(parts)
        ]


def check_own(config: RunConfig, rows: OwnRows, test_rows: OwnRows | None) -> OwnData:
    """Return the rows that were given from Python, held to what a file is held to.

    Raises:
        UserError: a row that is wrong, or options that do not fit rows of each client.
    """
    data, partition = config.data, config.partition
    parts, _ = rows.checked("rows", data)
    together = [row for part in parts for row in part]
    if not rows.is_dealt:
        if partition.name == PARTITION:
            raise UserError("partition.name=given, and rows= is one list; give the rows of each client, or a partition")
        if test_rows is not None and test_rows.is_dealt:
            raise UserError(
                "test_rows= is for each client, and rows= is one list; give both alike, or test_rows= as one"
            )
        return OwnData(rows=together, test_rows=_own_test_set(config, together, test_rows))
    if (partition.name, partition.num_shards, data.sample) != (PARTITION, None, None):
        raise UserError(
            "rows= are for each client, and nothing is dealt or drawn: leave out partition.name, partition.num_shards "
            "and data.sample, or give one list"
        )
    if len(parts) != config.num_clients:
        raise UserError(f"num_clients={config.num_clients}, and rows= has {len(parts)} clients; leave num_clients out")
    train = [*numbered(parts)]
    if test_rows is None or not test_rows.is_dealt:
        return OwnData(
            rows=together, parts=train, test_rows=_own_test_set(config, together, test_rows), names=rows.names
        )
    if test_rows.names != rows.names:
        raise UserError(
            f"test_rows= has {len(test_rows.parts)} clients and rows= has {len(parts)}, or they have other names; give "
            "the same clients in the same order"
        )
    own_tests, places = test_rows.checked("test_rows", data)
    tested = [row for part in own_tests for row in part]
    spec = task_spec(data.task)
    spec.check_test_rows(tested, places, spec.class_names(together, data), data)
    test = [*numbered(own_tests, len(together))]
    return OwnData(rows=[*together, *tested], parts=train, test_parts=test, names=rows.names)


def _own_test_set(config: RunConfig, rows: list[Row], test_rows: OwnRows | None) -> list[Row]:
    """Return a test set of nobody's; a check of its own finds one missing that the rows leave nothing for."""
    if test_rows is None:
        if config.partition.test_fraction == 0 and config.partition.min_test_rows == 0:
            raise UserError(
                "partition.test_fraction=0 and partition.min_test_rows=0 leave no row to test on; give one a value "
                "above 0, or test_rows="
            )
        return []
    (tests,), places = test_rows.checked("test_rows", replace(config.data, label=None))
    spec = task_spec(config.data.task)
    spec.check_test_rows(tests, places, spec.class_names(rows, config.data), config.data)
    return tests
