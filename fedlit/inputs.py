"""The rows and who holds them, read before torch is imported: a mistake in a file is reported within a second."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedlit.config import RunConfig
from fedlit.config.choosing import has_validation, require_founded
from fedlit.config.record import flat_values
from fedlit.config.schema import PartitionConfig
from fedlit.data.kept_rows import ChosenRows, KeptRows
from fedlit.data.notices import row_notices, validation_notices
from fedlit.data.own_rows import PARTITION, SOURCE, OwnRows, require_own
from fedlit.data.prompts import Row
from fedlit.data.sources import ReadRows, load_test_rows, load_validation_rows, read_data, sample_numbers
from fedlit.errors import UserError
from fedlit.general import GeneralSet, general_set
from fedlit.lines import printable
from fedlit.metrics.meteor_jar import require_meteor
from fedlit.partition.own import OwnData, check_own
from fedlit.partition.shards import (
    Owned,
    RowLabels,
    Shard,
    draw_seed,
    make_shards,
    partition_record,
    row_labels,
    rows_checksum,
    shards_checksum,
)
from fedlit.partition.validation import split_off_validation
from fedlit.store.folder import RunFolder
from fedlit.tasks.registry import task_spec


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A configuration with its rows and every client's shard of them.

    labels: of every row, as the partition sees them; None for rows without labels.
    own_test_rows: those of a test set that belongs to no client; none if the data set has none. own_validation_rows:
    the same of a validation set.
    classes: names of the classes in the order of their numbers; none without a classification.
    notices: lines about the rows that a person should read. general: what forgetting is measured on, if it is.
    """

    config: RunConfig
    rows: Sequence[Row]
    shards: list[Shard]
    labels: RowLabels | None = None
    own_test_rows: tuple[Row, ...] = ()
    own_validation_rows: tuple[Row, ...] = ()
    classes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    general: GeneralSet | None = None

    def in_files(self) -> "Inputs":
        """Return the same with rows that are looked up in files without a name, not kept as objects; those that were
        given from Python stay, since the caller has them anyway.
        """
        if self.config.data.source == SOURCE:
            return self
        return replace(self, rows=KeptRows.of(self.rows))

    @property
    def test_rows(self) -> Sequence[Row]:
        """The global test set: the data set's own, or the clients' test parts together."""
        return self.own_test_rows or self.rows_of([row for shard in self.shards for row in shard.test])

    @property
    def validation_rows(self) -> Sequence[Row]:
        """The validation set: the data set's own, or the clients' validation parts together; none without any."""
        return self.own_validation_rows or self.rows_of([row for shard in self.shards for row in shard.validation])

    def rows_of(self, numbers: Sequence[int]) -> Sequence[Row]:
        """Return the rows with these numbers, each looked up when it is asked for."""
        return ChosenRows(self.rows, numbers)

    @property
    def client_names(self) -> tuple[str, ...]:
        """What the user calls each client, '' where it has no name."""
        return tuple(shard.name for shard in self.shards)

    def partition_record(self) -> dict[str, Any]:
        """Return what partition.json holds; of rows from Python also that there is no test set where none was given."""
        data, tests = self.config.data, self.own_test_rows
        record = partition_record(
            self.rows,
            self.shards,
            data,
            labels=self.labels,
            own_test_rows=tests,
            own_validation_rows=self.own_validation_rows,
        )
        if data.source == SOURCE:
            record["test_rows_sha256"] = rows_checksum(tests)
        return record


def gather_inputs(
    config: RunConfig,
    rows: OwnRows | None = None,
    test_rows: OwnRows | None = None,
    validation_rows: OwnRows | None = None,
) -> Inputs:
    """Read and deal the rows; a run folder of another configuration, a score whose program is missing and every
    mistake in the data is a UserError. `rows`, `test_rows` and `validation_rows` were given from Python, with
    data.source=memory.
    """
    folder = RunFolder(config)
    folder.require_place()
    folder.require_same_run()
    if "meteor_15" in (config.data.scores or ()):
        require_meteor()
    require_own(config.data, has_rows=rows is not None)
    own = None if rows is None else check_own(config, rows, test_rows, validation_rows)
    if own is None and config.partition.name == PARTITION:
        raise UserError("partition.name=given is of rows that are given from Python for each client; choose another")
    by_file, seed = config.partition.name == "files", draw_seed(config)
    read = read_data(config.data, by_file=by_file) if own is None else ReadRows(rows=own.rows)
    all_rows, numbers = read.rows, sample_numbers(read.rows, config.data, seed)
    drawn = [all_rows[i] for i in numbers]
    spec = task_spec(config.data.task)
    # Of all rows: a sample may lack a rare one.
    classes = read.in_order(spec.class_names(all_rows if own is None else own.train_rows, config.data))
    own_test_rows = load_test_rows(config.data, classes) if own is None else own.test_rows
    own_validation = load_validation_rows(config.data, classes) if own is None else own.validation_rows
    known, tested = (all_rows, own_test_rows) if own is None else (own.train_rows, own.tested_rows)
    notices = (
        folder.notices()
        + list(read.notices)
        + _pooled_files(read.files, config.partition)
        + row_notices(known, tested, config.data, columns=list(spec.columns(config.data)), classes=classes)
    )
    folder.require_same_rows("rows_sha256", rows_checksum(drawn))
    if own_test_rows or own is not None:
        folder.require_same_rows("test_rows_sha256", rows_checksum(own_test_rows))
    folder.require_same_rows("validation_rows_sha256", rows_checksum(own_validation) if own_validation else None)
    labels = row_labels(drawn, config.data, config.partition, seed)
    shards = (own and own.shards) or make_shards(
        drawn,
        config.data,
        config.partition,
        config.num_clients,
        seed,
        labels=labels,
        with_test_parts=not own_test_rows or config.eval.on != "global",
        owned=Owned(
            parts=None if own is None else own.parts,
            names=() if own is None else own.names,
            files=[read.files[i] for i in numbers] if read.files else (),
        ),
    )
    _require_writable(shards)
    shards = _with_validation(shards, drawn, config, own, own_validation)
    folder.require_same_rows("shards_sha256", shards_checksum(shards))
    inputs = Inputs(
        config=config,
        rows=drawn,
        shards=shards,
        labels=labels,
        own_test_rows=tuple(own_test_rows),
        own_validation_rows=tuple(own_validation),
        classes=classes,
        general=general_set(config),
    )
    notices += _validation_notices(inputs, folder)
    if config.eval.protocol != "options":
        of_clients = [] if config.eval.on == "global" and own_test_rows else [r for shard in shards for r in shard.test]
        notices += spec.test_notices([*own_test_rows, *(drawn[row] for row in of_clients)], config.data)
    return replace(inputs, notices=tuple(notices))


def _require_writable(shards: Sequence[Shard]) -> None:
    """Refuse a client's name that cannot be written as UTF-8: of a file, from Python, wherever it is from."""
    for shard in shards:
        try:
            shard.name.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the name of client {shard.client_id}, {shard.name!a}, is no UTF-8; rename its file, or the client"
            ) from None


def _with_validation(
    shards: list[Shard], rows: list[Row], config: RunConfig, own: OwnData | None, own_validation: list[Row]
) -> list[Shard]:
    """Return the shards with their validation parts: those of another run's file or from Python as they are, else a
    part of every client's training rows, if it is asked for.
    """
    if own is not None and own.validation_parts is not None:
        return [replace(shard, validation=part) for shard, part in zip(shards, own.validation_parts, strict=True)]
    if any(shard.validation for shard in shards):  # of a partition's file
        if own_validation:
            raise UserError(
                "partition.path: the clients of that run have validation parts, and this run has a validation set of "
                "its own; leave one of them out"
            )
        return shards
    if config.partition.validation_fraction == 0:
        return shards
    return split_off_validation(shards, rows, config.data, config.partition, draw_seed(config))


def _validation_notices(inputs: Inputs, folder: RunFolder) -> list[str]:
    """Return lines about rows on which rounds are chosen.

    Raises:
        UserError: a round is to be chosen and there are none, or a folder's run chose otherwise.
    """
    config, validation = inputs.config, inputs.validation_rows
    values = flat_values(config)
    require_founded(values, found=bool(validation))
    if not validation:
        return []
    if not has_validation(values):
        folder.require_same_choice()
    return validation_notices(
        [inputs.rows[row] for shard in inputs.shards for row in shard.train],
        inputs.test_rows,
        validation,
        config.data,
        columns=list(task_spec(config.data.task).columns(config.data)),
        is_own=bool(inputs.own_validation_rows) or config.data.source == SOURCE,
    )


def _pooled_files(files: Sequence[str], partition: PartitionConfig) -> list[str]:
    """Return a line where several files are dealt as one, which a person who has a file of each site does not want."""
    names = list(dict.fromkeys(files))
    if len(names) < 2 or partition.name in ("files", "file", "natural"):
        return []
    shown = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
    return [
        f"the rows of {len(names)} files ({printable(shown)}) are dealt together by partition.name={partition.name}; "
        f"partition.name=files num_clients={len(names)} makes each a client"
    ]
