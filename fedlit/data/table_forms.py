"""Forms of tables by the endings of their names."""

from pathlib import Path

from fedlit.data.opened import COMPRESSED

FORMS = {
    **{".jsonl": "lines", ".ndjson": "lines", ".json": "json"},
    **{".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".txt": "text"},
    **{".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"},
}
"""Endings of tables, in lower case, and the form of each."""
ENDINGS = ".jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .feather or .txt"
"""The endings as messages name them."""
_OTHERS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet; save it as CSV UTF-8"),
    **dict.fromkeys((".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar"), "an archive; unpack it, and give its folder"),
    **dict.fromkeys(
        (".pkl", ".pickle"), "pickled, and to read it would run what it holds; save a .csv or .parquet file"
    ),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "a database; write its rows to a .csv or .parquet file"),
}
"""What files that are no tables here are, and what to do."""


def form_of(name: str) -> str:
    """Return the form of a table by its name, compressed or not; '' if its ending is none's."""
    path = Path(name.lower())
    if path.suffix in COMPRESSED:
        return FORMS.get(Path(path.stem).suffix, "zip" if path.suffix == ".zip" else "")
    return FORMS.get(path.suffix, "")


def other_kind(name: str) -> str | None:
    """Return what a file is that holds rows in a form that is not read, and what to do; None if it is nothing known."""
    return next((_OTHERS[suffix] for suffix in map(str.lower, Path(name).suffixes[-2:]) if suffix in _OTHERS), None)


def stem(path: Path) -> str:
    """Return a file's name without its endings."""
    name = path.name
    if Path(name).suffix.lower() in COMPRESSED:
        name = Path(name).stem
    return Path(name).stem if Path(name).suffix.lower() in FORMS else name
