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

    parts: row numbers of every client; None where the rows are to be dealt. test_parts, validation_parts: those that
    are for testing and for validation; None where they are to be drawn, or where there are none. test_rows,
    validation_rows: sets that belong to no client. names: of the clients.
    """

    rows: list[Row]
    parts: list[tuple[int, ...]] | None = None
    test_parts: list[tuple[int, ...]] | None = None
    validation_parts: list[tuple[int, ...]] | None = None
    test_rows: list[Row] = field(default_factory=list)
    validation_rows: list[Row] = field(default_factory=list)
    names: tuple[str, ...] = ()

    @property
    def train_rows(self) -> list[Row]:
        """The rows that say what is to be learned: all but the clients' own other rows, where those are given."""
        return self.rows[: sum(map(len, self.parts))] if self.parts else self.rows

    @property
    def tested_rows(self) -> list[Row]:
        """The test rows that were given: a set of nobody's, or the clients' own together."""
        return self._of(self.test_parts) or self.test_rows

    def _of(self, parts: list[tuple[int, ...]] | None) -> list[Row]:
        return [self.rows[number] for part in parts or () for number in part]

    @property
    def shards(self) -> list[Shard] | None:
        """The clients' shards where training and test part of each are given; without their validation parts."""
        if self.parts is None or self.test_parts is None:
            return None
        parts = zip(self.parts, self.test_parts, self.names, strict=True)
        return [
            Shard(client_id=client, train=train, test=test, name=name)
            for client, (train, test, name) in enumerate(parts)
        ]


def check_own(
    config: RunConfig, rows: OwnRows, test_rows: OwnRows | None, validation_rows: OwnRows | None = None
) -> OwnData:
    """Return the rows that were given from Python, held to what a file is held to.

    Raises:
        UserError: a row that is wrong, or options that do not fit rows of each client.
    """
    data, partition = config.data, config.partition
    parts, _ = rows.checked("rows", data)
    together = [row for part in parts for row in part]
    others = {"test_rows": test_rows, "validation_rows": validation_rows}
    if validation_rows is not None and partition.validation_fraction > 0:
        raise UserError(
            f"validation_rows= is given beside partition.validation_fraction={partition.validation_fraction}; "
            "leave one of them out"
        )
    if not rows.is_dealt:
        if partition.name == PARTITION:
            raise UserError("partition.name=given, and rows= is one list; give the rows of each client, or a partition")
        for argument, given in others.items():
            if given is not None and given.is_dealt:
                raise UserError(
                    f"{argument}= is for each client, and rows= is one list; give both alike, or {argument}= as one"
                )
        return OwnData(
            rows=together,
            test_rows=_own_test_set(config, together, test_rows),
            validation_rows=_set_of_nobody(config, together, validation_rows, "validation_rows"),
        )
    if (partition.name, partition.num_shards, data.sample) != (PARTITION, None, None):
        raise UserError(
            "rows= are for each client, and nothing is dealt or drawn: leave out partition.name, partition.num_shards "
            "and data.sample, or give one list"
        )
    if len(parts) != config.num_clients:
        raise UserError(f"num_clients={config.num_clients}, and rows= has {len(parts)} clients; leave num_clients out")
    all_rows, numbers = [*together], {}
    for argument, given in others.items():
        if given is not None and given.is_dealt:
            own = _parts_of_clients(config, rows, given, argument, together)
            numbers[argument] = [*numbered(own, len(all_rows))]
            all_rows += [row for part in own for row in part]
    return OwnData(
        rows=all_rows,
        parts=[*numbered(parts)],
        test_parts=numbers.get("test_rows"),
        validation_parts=numbers.get("validation_rows"),
        test_rows=[] if "test_rows" in numbers else _own_test_set(config, together, test_rows),
        validation_rows=[]
        if "validation_rows" in numbers
        else _set_of_nobody(config, together, validation_rows, "validation_rows"),
        names=rows.names,
    )


def _parts_of_clients(
    config: RunConfig, rows: OwnRows, given: OwnRows, argument: str, train_rows: list[Row]
) -> list[list[Row]]:
    """Return the rows of every client that were given beside its training rows."""
    if given.names != rows.names:
        raise UserError(
            f"{argument}= has {len(given.parts)} clients and rows= has {len(rows.parts)}, or they have other names; "
            "give the same clients in the same order"
        )
    parts, places = given.checked(argument, config.data)
    spec = task_spec(config.data.task)
    found = [row for part in parts for row in part]
    spec.check_test_rows(found, places, spec.class_names(train_rows, config.data), config.data)
    return parts


def _own_test_set(config: RunConfig, rows: list[Row], test_rows: OwnRows | None) -> list[Row]:
    """Return a test set of nobody's; a check of its own finds one missing that the rows leave nothing for."""
    if test_rows is None and config.partition.test_fraction == 0 and config.partition.min_test_rows == 0:
        raise UserError(
            "partition.test_fraction=0 and partition.min_test_rows=0 leave no row to test on; give one a value "
            "above 0, or test_rows="
        )
    return _set_of_nobody(config, rows, test_rows, "test_rows")


def _set_of_nobody(config: RunConfig, rows: list[Row], given: OwnRows | None, argument: str) -> list[Row]:
    """Return the rows of a set that belongs to no client; none if it is not given."""
    if given is None:
        return []
    (found,), places = given.checked(argument, replace(config.data, label=None))
    spec = task_spec(config.data.task)
    spec.check_test_rows(found, places, spec.class_names(rows, config.data), config.data)
    return found
