"""Where the rows come from: local files, the Hugging Face hub or a reader inside the package.

Every row is checked as it is read, before a model is loaded, so that a mistake in line 16,000 shows at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fedlit.config.schema import DataConfig
from fedlit.data import pydoc
from fedlit.data.drawing import draw
from fedlit.data.hub import open_hub
from fedlit.data.image_sources import open_digits, open_images
from fedlit.data.paths import given_paths
from fedlit.data.places import file_of
from fedlit.data.prompts import Row
from fedlit.data.reader import Reader
from fedlit.data.table_paths import table_files
from fedlit.data.tables import read_tables
from fedlit.data.wanted import Record, Wanted
from fedlit.errors import UserError
from fedlit.registry import build_part, registered
from fedlit.tasks.registry import task_spec

FILE = "file"
"""A column that holds the name of a row's file where a configuration asks for it and the rows have no such column."""


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """All rows of a data set, in order.

    files: of every row, the name of its file as a client's under `partition.name=files`; none if there are no files.
    notices: lines about how the files were read that a person should see. classes: names of the target's classes in
    the order of their numbers, where the data set has both.
    """

    rows: list[Row]
    files: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def in_order(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return names of classes in the order of the data set's own numbers, if it has one for each."""
        known = {name: number for number, name in enumerate(self.classes)}
        return tuple(sorted(names, key=known.__getitem__) if set(names) <= known.keys() else names)


def read_rows(config: DataConfig) -> list[Row]:
    """Return the rows of `read_data`."""
    return read_data(config).rows


def read_data(config: DataConfig, *, by_file: bool = False) -> ReadRows:
    """Return all rows of a data set in their original order, each with every column that the configuration needs.

    See the `check` of the task's spec for what they hold. by_file: each file, or folder of images, is a client's.

    Raises:
        UserError: file, line, column or option that is wrong, and what to do about it.
    """
    task_spec(config.task).columns(config)  # a template that is none is told before a file is read
    notices: list[str] = []
    wanted = _wanted(config, "data.path", notices.append)
    rows, places = _checked_rows(*_open_source(config, wanted, by_file=by_file), config)
    files, classes = tuple(map(file_of, places)), wanted.names.get(config.target, [])
    return ReadRows(rows=rows, files=files if all(files) else (), notices=tuple(notices), classes=tuple(classes))


def sample_rows(rows: Sequence[Row], config: DataConfig, seed: int) -> list[Row]:
    """Return `config.sample` of the rows, drawn in proportion to the labels from the stream (seed, "sample"), or all.

    Raises:
        UserError: there are not so many, or a label is none.
    """
    return [rows[i] for i in sample_numbers(rows, config, seed)]


def sample_numbers(rows: Sequence[Row], config: DataConfig, seed: int) -> Sequence[int]:
    """Return the numbers of the rows of `sample_rows`, ascending."""
    return range(len(rows)) if config.sample is None else draw(rows, config, seed)


def load_rows(config: DataConfig, seed: int) -> list[Row]:
    """Return the rows of a data set that take part: all of `read_rows`, or a sample of them.

    Raises:
        UserError: as `read_rows` and `sample_rows`.
    """
    return sample_rows(read_rows(config), config, seed)


def load_test_rows(config: DataConfig, classes: Sequence[str] = ()) -> list[Row]:
    """Return the rows of the data set's own test set, none if it has none.

    `classes` are those of the training rows, which alone say what there is to predict; without them a row's class is
    held against `data.classes` at most.

    Raises:
        UserError: as `read_rows`, or a class that is none of `classes`, or the split that is trained on.
    """
    if config.source in registered("reader") and registered("reader")[config.source].has_test_rows:
        source, records = _open_outside(config, test=True)
        return _checked_set(source, _renamed(records, config), config, classes)
    test = _test_set(config)
    if test is None:
        return []
    _require_others(test, config, _TEST_KEYS, "trained on", "to test on a part of every client's rows")
    source, records = _open_source(test, _wanted(test, "data.test_path"))
    return _checked_set(source, _renamed(records, config), config, classes)


def load_validation_rows(config: DataConfig, classes: Sequence[str] = ()) -> list[Row]:
    """Return the rows of the data set's own validation set, none if it has none; its columns are called as in training.

    `classes` are those of the training rows, as for `load_test_rows`.

    Raises:
        UserError: as `load_test_rows`, or the set that is tested on.
    """
    if config.validation_path is None and (config.hub_validation_split is None or config.path is not None):
        return []
    chosen_on = replace(config, path=config.validation_path, hub_split=config.hub_validation_split or config.hub_split)
    rest = "to choose on a part of every client's rows, with partition.validation_fraction"
    _require_others(chosen_on, config, _VALIDATION_KEYS, "trained on", rest)
    if (test := _test_set(config)) is not None:
        _require_others(chosen_on, test, _VALIDATION_KEYS, "tested on", rest)
    source, records = _open_source(chosen_on, _wanted(chosen_on, "data.validation_path"))
    return _checked_set(source, records, config, classes)


_TEST_KEYS = ("data.test_path", "data.hub_test_split")
_VALIDATION_KEYS = ("data.validation_path", "data.hub_validation_split")


def _test_set(config: DataConfig) -> DataConfig | None:
    """Return a configuration that trains on the test set, None if there is no such set."""
    if config.test_path is None and (config.hub_test_split is None or config.path is not None):
        return None
    test = replace(config, path=config.test_path, hub_split=config.hub_test_split or config.hub_split)
    if config.hub_test_id is not None:
        test = replace(test, hub_id=config.hub_test_id, hub_config=config.hub_test_config)
    return test


def _require_others(chosen: DataConfig, other: DataConfig, keys: tuple[str, str], what_for: str, instead: str) -> None:
    """Refuse a set of rows that is another one too; `keys` name its file and its split."""
    where = ("hub_id", "hub_config", "hub_split")
    if chosen.path != other.path or (
        chosen.path is None and any(getattr(chosen, name) != getattr(other, name) for name in where)
    ):
        return
    key = keys[chosen.path is None]
    value = chosen.hub_split if chosen.path is None else ", ".join(given_paths(chosen.path))
    raise UserError(f"{key}={value}: the rows that are {what_for}; give others, or {key}=null {instead}")


def _checked_set(source: str, records: Iterable[Record], config: DataConfig, classes: Sequence[str]) -> list[Row]:
    """Return the rows of a set that is not trained on."""
    # The partition's label is of no use in it, and may be missing; and it has no further test set.
    apart = replace(config, label=None, test_path=None, hub_test_split=None)
    rows, places = _checked_rows(source, records, apart)
    task_spec(config.task).check_test_rows(rows, places, classes, config)
    return rows


def _other_names(config: DataConfig) -> list[tuple[str, str]]:
    """Return the columns that the test set calls otherwise, as pairs (here, there)."""
    names: list[tuple[str, str]] = []
    for entry in config.test_columns:
        here, equals, there = entry.partition("=")
        if not (here and equals and there):
            raise UserError(
                f"data.test_columns={config.test_columns}: {entry!r} is no pair of names; write <here>=<there>"
            )
        names.append((here, there))
    return names


def _renamed(records: Iterable[Record], config: DataConfig) -> Iterator[Record]:
    """Yield the records of the test set with the names of the training set's columns."""
    names = _other_names(config)
    for place, record in records:
        renamed = record
        if isinstance(record, Mapping):
            renamed = dict(record)
            for here, there in names:
                if there not in record:
                    raise UserError(
                        f"{place}: no column {there!r} (asked for by data.test_columns) among {list(record)}"
                    )
                renamed[here] = record[there]
        yield place, renamed


def _checked_rows(source: str, records: Iterable[Record], config: DataConfig) -> tuple[list[Row], list[str]]:
    """Return the rows and the place of each."""
    spec = task_spec(config.task)
    rows: list[Row] = []
    places: list[str] = []
    num_read = 0
    with_file = FILE in spec.read_columns(config)
    for place, record in records:
        num_read += 1
        if with_file and isinstance(record, dict) and file_of(place):
            record.setdefault(FILE, file_of(place))
        row = spec.check_row(record, place, config)
        if row is not None:
            rows.append(row)
            places.append(place)
    if not num_read:
        key = "data.path" if config.path is not None else "data.hub_split" if config.source == "hub" else "data.source"
        raise UserError(f"{source}: no rows; check {key}")
    if not rows:
        column, key = list(spec.columns(config).items())[-1]
        raise UserError(f"{source}: all {num_read} rows have an empty {column!r}; check {key}")
    return rows, places


def _open_source(config: DataConfig, wanted: Wanted, *, by_file: bool = False) -> tuple[str, Iterator[Record]]:
    """Return the name of the source, for errors, and its records."""
    if config.source in registered("reader"):
        return _open_outside(config)
    readers: dict[str, Callable[[], tuple[str, Iterator[Record]]]] = {
        "pydoc": _open_pydoc,
        "digits": lambda: open_digits(config),
        "table": lambda: _open_tables(config, wanted),
        "jsonl": lambda: _open_tables(config, wanted),
        "images": lambda: open_images(config, wanted.key, by_file=by_file, classes=wanted.names),
        "hub": lambda: open_hub(config, wanted),
    }
    if config.source not in readers:
        raise UserError(f"data.source={config.source}: not a source; choose one of {', '.join(readers)}")
    return readers[config.source if config.path is None else task_spec(config.task).local_source]()


def _wanted(config: DataConfig, key: str, tell: Callable[[str], None] = lambda line: None) -> Wanted:
    """Return what is looked at in the rows, by the names that the columns have there.

    `key` is the option that names a local file; `tell` takes a line about how it is read.
    """
    spec = task_spec(config.task)
    renamed = dict(_other_names(config)) if key == "data.test_path" else {}
    own = [renamed.get(column, column) for column in dict.fromkeys(spec.columns(config))]
    read = [*own, *(renamed.get(column, column) for column in spec.read_columns(config)), *renamed.values()]
    target = renamed.get(config.target, config.target) if spec.has_head and not config.regression else None
    named = () if config.classes is not None else (target, config.label)
    return Wanted(
        columns=tuple(dict.fromkeys(read)),
        own=tuple(own),
        target=renamed.get(config.target, config.target) if spec.has_head else None,
        number=config.regression,
        named=tuple(column for column in named if column is not None),
        key=key,
        tell=tell,
    )


def _open_tables(config: DataConfig, wanted: Wanted) -> tuple[str, Iterator[Record]]:
    if config.path is None:
        raise UserError(f"data.source={config.source} without a file; give data.path=<file>.jsonl, .csv or .parquet")
    return ", ".join(given_paths(config.path)), read_tables(table_files(config.path, wanted.key), wanted)


def _open_outside(config: DataConfig, *, test: bool = False) -> tuple[str, Iterator[Record]]:
    """Return the rows of a reader from outside."""
    reader: Reader = build_part("reader", config.source, config.source_options)
    rows, which = (reader.test_rows(config), "test row") if test else (reader.rows(config), "row")
    if not isinstance(rows, Iterable) or isinstance(rows, str | Mapping):
        raise UserError(
            f"data.source={config.source}: {type(reader).__name__} returns {type(rows).__name__}, no rows; return a "
            "list of mappings from column to value"
        )
    return config.source, ((f"{config.source}, {which} {i}", row) for i, row in enumerate(rows))


def _open_pydoc() -> tuple[str, Iterator[Record]]:
    return "pydoc", ((f"pydoc, row {i}", row) for i, row in enumerate(pydoc.read_rows()))
