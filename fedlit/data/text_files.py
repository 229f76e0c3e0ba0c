"""Rows of plain text without a header: a line each, or two texts with `||` between them, as LoRA's files of E2E."""

from collections.abc import Iterator

from fedlit.data.places import Place
from fedlit.data.wanted import Record, Wanted
from fedlit.errors import UserError

BETWEEN = "||"


def read_text(text: str, place: str, file: str, wanted: Wanted) -> Iterator[Record]:
    """Yield a row for each line that is not blank, its columns called as the configuration calls what it reads: one, or
    two with `||` between them. White space around a text is left out.

    Raises:
        UserError: a line of another number of texts, or a configuration that reads more.
    """
    names = wanted.own
    if len(names) not in (1, 2):
        raise UserError(
            f"{place}: its texts have no names, and {len(names)} columns are asked for ({', '.join(names)}); give "
            "data.prompt and data.response, or write a table with a header (.csv, .tsv)"
        )
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        where = Place(f"{place}, line {number}", file)
        texts = [line] if len(names) == 1 else line.split(BETWEEN)
        if len(texts) != len(names):
            raise UserError(
                f"{where}: {len(texts)} texts, and a line is to hold {' and '.join(names)} with {BETWEEN} between; for "
                "plain text give data.text=<column>, for other tables .csv or .jsonl"
            )
        yield where, {name: text.strip() for name, text in zip(names, texts, strict=True)}
