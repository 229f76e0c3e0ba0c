"""The published numbers of a sweep's table: configs/published/<sweep>.yaml, row by row as the paper prints them.

    paper: Mahla et al., "...", arXiv 2412.07021
    table: table 2
    protocol: teacher_forced      # how its answers came about, where known
    round: best                   # `last` or `best`, or a list of both where that is not known
    scale: {bleu_4: 1}            # what the paper prints for a score of 1 in the record; 1 if it says nothing
    decimals: 4                   # of every number but those in quotes
    rows_by:                      # columns that name a row, the key of its settings and what to call its values
      - {heading: method, key: method, names: {scl: SCL}}
    columns:                      # what stands in a row; score: one, or the first that a run has of several
      - {heading: BLEU-4, score: bleu_4, settings: {}}
    rows:                         # values in the order of the columns, null for none; average: as printed
      - {settings: {method: scl}, values: [.3204]}
    doubts:                       # of all numbers with these settings
      - {of: {method: ffa_lora}, note: ...}

A number belongs to every cell of the sweep that has the settings of its row and of its column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.config import CONFIG_DIR
from fedlit.config.places import list_choices, read_choice
from fedlit.errors import UserError

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Label:
    """A column that names a row: its heading, the key whose value it shows, and what to call the values."""

    heading: str
    key: str
    names: Mapping[Any, str]

    def of(self, settings: Settings) -> str:
        """Return what the row of these settings is called here; empty if they say nothing."""
        value = settings.get(self.key)
        return "" if value is None else self.names.get(value, str(value))


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of numbers.

    scores: alternatives, of which the first that a run has counts. scale: what is printed for a score of 1.
    """

    heading: str
    scores: tuple[str, ...]
    settings: Settings
    scale: float
    decimals: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One printed row: values as printed, in the order of the columns, and their mean; None where nothing is known."""

    settings: Settings
    values: tuple[str | None, ...]
    average: str | None


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is known to be wrong or suspect about all numbers with these settings."""

    of: Settings
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One published table. rounds: which of `last` and `best` it reports; both if it does not say."""

    paper: str
    table: str
    protocol: str | None
    rounds: tuple[str, ...]
    rows_by: tuple[Label, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    doubts: tuple[Doubt, ...]
    has_average: bool
    notes: tuple[str, ...]

    def doubts_of(self, row: Row, column: Column | None) -> list[str]:
        """Return what is known to be wrong with a number; with that of all columns for the row's average."""
        columns = self.columns if column is None else (column,)
        return [d.note for d in self.doubts if any(matches(d.of, {**row.settings, **c.settings}) for c in columns)]


def matches(wanted: Settings, settings: Settings) -> bool:
    """Tell whether settings have all those that are wanted."""
    return all(key in settings and settings[key] == value for key, value in wanted.items())


def load_published(sweep: str, config_dir: Path = CONFIG_DIR) -> Published | None:
    """Return the published numbers of a sweep, None if there are none.

    Raises UserError for a file that is no such table.
    """
    if sweep not in list_choices(config_dir, "published"):
        return None
    file = read_choice(config_dir, "published", sweep)
    try:
        return _published(file.content)
    except KeyError as error:
        raise UserError(f"{file.origin} lacks {error}; write it as the files in configs/published do") from None
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{file.origin} is no table of published numbers ({error}); write it as the files in configs/published do"
        ) from None


def _published(content: Mapping[str, Any]) -> Published:
    """Return the table that a file holds."""
    scale = content.get("scale", {})
    columns = tuple(_column(entry, scale, int(content["decimals"])) for entry in content["columns"])
    rows = tuple(_row(entry, columns) for entry in content["rows"])
    return Published(
        paper=str(content["paper"]),
        table=str(content["table"]),
        protocol=content.get("protocol"),
        rounds=tuple(_as_list(content["round"])),
        rows_by=tuple(Label(entry["heading"], entry["key"], entry.get("names", {})) for entry in content["rows_by"]),
        columns=columns,
        rows=rows,
        doubts=tuple(Doubt(entry["of"], entry["note"]) for entry in content.get("doubts", ())),
        has_average=any(row.average is not None for row in rows),
        notes=tuple(content.get("notes", ())),
    )


def scales_of(published: Published | None) -> dict[str, float]:
    """Return what the paper prints for a score of 1, of each score of its table; nothing if there is no paper."""
    columns = published.columns if published else ()
    return {score: column.scale for column in columns for score in column.scores}


def _column(entry: Mapping[str, Any], scale: Mapping[str, float], decimals: int) -> Column:
    scores = tuple(_as_list(entry["score"]))
    factors = {float(scale.get(score.split("/")[0], 1)) for score in scores}
    assert len(factors) == 1, f"{entry['heading']} holds scores of several units"
    return Column(
        heading=str(entry["heading"]),
        scores=scores,
        settings=entry.get("settings", {}),
        scale=factors.pop(),
        decimals=decimals,
    )


def _row(entry: Mapping[str, Any], columns: Sequence[Column]) -> Row:
    assert len(entry["values"]) == len(columns), f"a published row has other columns than its table: {entry}"
    values = tuple(_text(value, column.decimals) for value, column in zip(entry["values"], columns, strict=True))
    return Row(settings=entry["settings"], values=values, average=_text(entry.get("average"), columns[0].decimals))


def _text(value: float | str | None, decimals: int) -> str | None:
    """Return a number as the paper prints it: with the table's decimals, unless it stands in quotes."""
    return f"{value:.{decimals}f}" if isinstance(value, int | float) else value


def _as_list(value: Any) -> Sequence[str]:
    return value if isinstance(value, list) else [value]
