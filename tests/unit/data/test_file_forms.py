"""Forms of files that people have, as they lie in public repositories, with invented content; and what is said of each.

The table of `docs/howto/data.md` is made of these cases: `python tests/unit/data/test_file_forms.py` writes it anew.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from fedlit.config.schema import DataConfig
from fedlit.data.sources import ReadRows, read_data
from fedlit.errors import UserError

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "data.md"
BEGIN, END = "<!-- forms -->", "<!-- end of forms -->"

ROWS: list[dict[str, Any]] = [
    {"prompt": "Where is it?", "response": "2020-01-01", "label": "a"},
    {"prompt": "Grüße,\n\"naïve\"", "response": "007", "label": "b"},
    {"prompt": "1.0", "response": "NA", "label": "a"},
]  # fmt: skip
ALPACA = [{"instruction": f"Do {i}.", "input": "", "output": f"Done {i}."} for i in range(3)]
BY_INSTRUCTION = {"template": "{instruction}\n{input}\n", "response": "output", "label": None}
CLASSES = {"task": "sequence_classification"}
QUESTIONS = {"prompt": "question", "response": "answer", "label": None}


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form of files.

    make: writes the files into the working folder. path: `data.path`. rows: what is read; None where it is refused, in
    a line that holds every one of `says`; of what is read these are notices. files: clients' names.
    """

    name: str
    make: Callable[[], object]
    path: str | list[str]
    rows: list[dict[str, Any]] | None = None
    says: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=lambda: {"label": "label"})


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows: list[dict[str, Any]], **how: Any) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), **how)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def qa(name: str, num: int = 2) -> list[dict[str, Any]]:
    return [{"question": f"{name} {i}?", "answer": f"{i}"} for i in range(num)]


def many(files: dict[str, list[dict[str, Any]]]) -> Callable[[], None]:
    def make() -> None:
        for name, rows in files.items():
            write(name, table(rows) if name.endswith(".csv") else json.dumps(rows))

    return make


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(content)
    return buffer.getvalue().to_pybytes()


def labelled() -> datasets.Dataset:
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    return datasets.Dataset.from_dict({"text": ["bad", "good", "fine"], "label": [0, 1, -1]}, features=features)


def parquet(name: str, content: dict[str, Any]) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(content), name)


def arrow(name: str, kind: Any) -> None:
    content = pa.Table.from_pylist(ROWS)
    with kind(name, content.schema) as writer:
        writer.write_table(content)


COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
NAMED = [{"text": "bad", "label": "neg"}, {"text": "good", "label": "pos"}, {"text": "fine", "label": -1}]
TWO = [{"text": "bad", "label": "neg"}, {"text": "good", "label": "pos"}]
HOSPITALS = [*qa("north"), *qa("south")]

FORMS = [
    # JSON
    Form(name="JSON Lines", make=lambda: write("rows.jsonl", lines(ROWS)), path="rows.jsonl", rows=ROWS),
    Form(name="JSON Lines", make=lambda: write("rows.ndjson", lines(ROWS)), path="rows.ndjson", rows=ROWS),
    Form(
        name="one object a line, as `Dataset.to_json` writes it",
        make=lambda: write("rows.json", lines(ROWS)),
        path="rows.json",
        rows=ROWS,
    ),
    Form(
        name="a list of objects, as Alpaca's",
        make=lambda: write("alpaca_data.json", json.dumps(ALPACA, indent=4)),
        path="alpaca_data.json",
        options=BY_INSTRUCTION,
        rows=ALPACA,
    ),
    Form(
        name="the same of LLM-Adapters: `answer`, which is not read, is a text, a number or a list",
        make=lambda: write(
            "train.json",
            json.dumps([row | {"answer": cell} for row, cell in zip(ALPACA, ["true", 7.0, ["12"]], strict=True)]),
        ),
        path="train.json",
        options=BY_INSTRUCTION,
        rows=[row | {"answer": cell} for row, cell in zip(ALPACA, ["true", 7.0, ["12"]], strict=True)],
    ),
    Form(
        name="an object with the rows under a key, as `to_json(orient='table')`",
        make=lambda: write("rows.json", json.dumps({"version": "1.1", "data": ROWS})),
        path="rows.json",
        rows=ROWS,
        says=("the rows are those under 'data'",),
    ),
    Form(
        name="rows under several keys",
        make=lambda: write("splits.json", json.dumps({"train": ROWS, "test": ROWS[:1]})),
        path="splits.json",
        says=("train (3), test (1)", "'data.path=splits.json#train'"),
    ),
    Form(
        name="one of these",
        make=lambda: write("splits.json", json.dumps({"train": ROWS, "test": ROWS[:1]})),
        path="splits.json#train",
        rows=ROWS,
        files=("train",),
    ),
    Form(
        name="an object of columns, as `Dataset.to_dict`",
        make=lambda: write("columns.json", json.dumps(COLUMNS)),
        path="columns.json",
        rows=ROWS,
    ),
    Form(
        name="an object of columns of numbered cells, as pandas' `to_json`",
        make=lambda: write("frame.json", json.dumps({n: dict(enumerate(cells)) for n, cells in COLUMNS.items()})),
        path="frame.json",
        rows=ROWS,
    ),
    Form(
        name="an object of rows by their names",
        make=lambda: write("by_id.json", json.dumps({f"q-{i}": row for i, row in enumerate(ROWS)})),
        path="by_id.json",
        rows=ROWS,
    ),
    Form(
        name="columns of different lengths",
        make=lambda: write("columns.json", json.dumps(COLUMNS | {"label": ["a"]})),
        path="columns.json",
        says=("column 'label' holds 1 cells and 'prompt' 3",),
    ),
    Form(
        name="a name twice in one object",
        make=lambda: write("rows.jsonl", '{"prompt": "p", "prompt": "q", "response": "r", "label": "a"}\n'),
        path="rows.jsonl",
        says=("rows.jsonl, line 1", "'prompt' stands twice"),
    ),
    Form(
        name="a column whose type changes",
        make=lambda: write("rows.json", json.dumps([*ROWS, {"prompt": 5, "response": "r", "label": "a"}])),
        path="rows.json",
        says=("rows.json, row 3", "holds 5, not a string"),
    ),
    # CSV and TSV
    Form(
        name="CSV, a line break and quotes in quotes; every cell is text",
        make=lambda: write("rows.csv", table(ROWS)),
        path="rows.csv",
        rows=ROWS,
    ),
    Form(
        name="CSV of a German or French Excel: a mark at its beginning, semicolons",
        make=lambda: write("rows.csv", b"\xef\xbb\xbf" + table(ROWS, delimiter=";").encode()),
        path="rows.csv",
        rows=ROWS,
        says=("its cells are taken to stand between ';'",),
    ),
    Form(
        name="CSV of Excel whose first line is `sep=;`",
        make=lambda: write("rows.csv", "sep=;\r\n" + table(ROWS, delimiter=";")),
        path="rows.csv",
        rows=ROWS,
        says=("between ';'",),
    ),
    Form(
        name="CSV of pandas with its index, a column without a name",
        make=lambda: write("rows.csv", table([{"": i} | row for i, row in enumerate(ROWS)])),
        path="rows.csv",
        rows=ROWS,
        says=("its first column has no name",),
    ),
    Form(
        name="CSV, the class an integer in every row",
        make=lambda: write("rows.csv", "text,label,site\ngood,1,01\nbad,0,02\n"),
        path="rows.csv",
        options=CLASSES,
        rows=[{"text": "good", "label": 1, "site": "01"}, {"text": "bad", "label": 0, "site": "02"}],
    ),
    Form(
        name="CSV, the class a number with a leading zero: a name",
        make=lambda: write("rows.csv", "text,label\ngood,01\nbad,10\n"),
        path="rows.csv",
        options=CLASSES,
        rows=[{"text": "good", "label": "01"}, {"text": "bad", "label": "10"}],
    ),
    Form(
        name="CSV, a number to predict",
        make=lambda: write("rows.csv", "text,label,note\ngood,5,\nbad,1.50,x\n"),
        path="rows.csv",
        options=CLASSES | {"regression": True, "label": None},
        rows=[{"text": "good", "label": 5, "note": None}, {"text": "bad", "label": 1.5, "note": "x"}],
    ),
    Form(
        name="CSV, no class in a row",
        make=lambda: write("rows.csv", "text,label\ngood,1\nbad,\n"),
        path="rows.csv",
        options=CLASSES,
        says=("rows.csv, line 3", "holds None, neither a class's number from 0 nor its name"),
    ),
    Form(
        name="CSV, an empty response",
        make=lambda: write("rows.csv", "prompt,response,label\np,,a\n"),
        path="rows.csv",
        says=("rows.csv, line 2", "'response' (data.response) is empty"),
    ),
    Form(
        name="CSV without a line of names",
        make=lambda: write("rows.csv", "What is it?,a dog,a\nWho?,me,b\n"),
        path="rows.csv",
        says=("rows.csv, line 1: is taken for the names of columns, 'What is it?', 'a dog', 'a'", "above the rows"),
    ),
    Form(
        name="CSV, a name twice",
        make=lambda: write("rows.csv", "prompt,response,label,label\np,r,a,b\n"),
        path="rows.csv",
        says=("line 1: two columns are called 'label'",),
    ),
    Form(
        name="CSV, a comma outside quotes",
        make=lambda: write("rows.csv", "prompt,response,label\np,r,a\nWell, who?,r,a\n"),
        path="rows.csv",
        says=("rows.csv, line 3: 4 cells, and the first line names 3 columns",),
    ),
    Form(
        name="CSV, a quote that is not closed",
        make=lambda: write("rows.csv", 'prompt,response,label\np,r,a\n"p,r,a\np,r,a\n'),
        path="rows.csv",
        says=("a cell after line 2 does not end",),
    ),
    Form(
        name="CSV in the encoding of a country (Windows-1252)",
        make=lambda: write("rows.csv", "prompt,response,label\nGrüße,r,a\n".encode("cp1252")),
        path="rows.csv",
        says=("rows.csv, line 2: not UTF-8", "iconv -f WINDOWS-1252 -t UTF-8"),
    ),
    Form(
        name="TSV in UTF-16, as Excel's Unicode text",
        make=lambda: write("rows.tsv", table(ROWS, delimiter="\t").encode("utf-16")),
        path="rows.tsv",
        rows=ROWS,
    ),
    Form(
        name="TSV of GLUE, whose quotes are part of the texts",
        make=lambda: write("train.tsv", 'text\tlabel\n"Well," he said.\t1\n"a good one"\t0\n'),
        path="train.tsv",
        options=CLASSES,
        rows=[{"text": '"Well," he said.', "label": 1}, {"text": '"a good one"', "label": 0}],
    ),
    Form(
        name="TSV of pandas, quotes around a cell with a line break",
        make=lambda: write("rows.tsv", table(ROWS, delimiter="\t")),
        path="rows.tsv",
        rows=ROWS,
    ),
    # Arrow
    Form(
        name="parquet of the hub, classes by number: their names",
        make=lambda: (Path("data").mkdir(), labelled().to_parquet("data/train-00000-of-00001.parquet")),
        path="data/train-00000-of-00001.parquet",
        options=CLASSES,
        rows=NAMED,
    ),
    Form(
        name="the same with `data.classes`: the numbers",
        make=lambda: (Path("data").mkdir(), labelled().select([0, 1]).to_parquet("data/train.parquet")),
        path="data",
        options=CLASSES | {"classes": ["bad", "good"]},
        rows=[{"text": "bad", "label": 0}, {"text": "good", "label": 1}],
    ),
    Form(
        name="parquet, integers with nulls",
        make=lambda: parquet("rows.parquet", COLUMNS | {"age": pa.array([1, None, 3], pa.int64())}),
        path="rows.parquet",
        rows=[row | {"age": age} for row, age in zip(ROWS, [1, None, 3], strict=True)],
    ),
    Form(
        name="parquet, dates where texts are read",
        make=lambda: parquet("rows.parquet", COLUMNS | {"response": [date(2020, 1, 1)] * 3}),
        path="rows.parquet",
        says=("rows.parquet, row 0", "datetime.date(2020, 1, 1), not a string"),
    ),
    Form(
        name="parquet, cut off",
        make=lambda: (
            parquet("rows.parquet", COLUMNS),
            write("rows.parquet", Path("rows.parquet").read_bytes()[:-20]),
        ),
        path="rows.parquet",
        says=("cannot be read as parquet", "fetch or write it again"),
    ),
    Form(name="Arrow file", make=lambda: arrow("rows.arrow", pa.ipc.new_file), path="rows.arrow", rows=ROWS),
    Form(
        name="Arrow stream, as in the cache of `datasets`",
        make=lambda: arrow("rows.arrow", pa.ipc.new_stream),
        path="rows.arrow",
        rows=ROWS,
    ),
    Form(
        name="Feather",
        make=lambda: pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), "rows.feather"),
        path="rows.feather",
        rows=ROWS,
    ),
    Form(
        name="folder of `Dataset.save_to_disk`",
        make=lambda: labelled().select([0, 1]).save_to_disk("saved"),
        path="saved",
        options=CLASSES,
        rows=TWO,
        files=("saved",),
    ),
    Form(
        name="folder of `DatasetDict.save_to_disk`",
        make=lambda: datasets.DatasetDict(train=labelled(), test=labelled()).save_to_disk("saved"),
        path="saved",
        options=CLASSES,
        says=("a data set of several splits; give data.path=saved/train data.test_path=saved/test",),
    ),
    # compressed
    Form(
        name="gzip",
        make=lambda: write("rows.jsonl.gz", gzip.compress(lines(ROWS).encode())),
        path="rows.jsonl.gz",
        rows=ROWS,
    ),
    Form(
        name="bzip2",
        make=lambda: write("rows.csv.bz2", bz2.compress(table(ROWS).encode())),
        path="rows.csv.bz2",
        rows=ROWS,
    ),
    Form(
        name="xz",
        make=lambda: write("rows.json.xz", lzma.compress(json.dumps(ROWS).encode())),
        path="rows.json.xz",
        rows=ROWS,
    ),
    Form(
        name="zstd",
        make=lambda: write("rows.jsonl.zst", zstd(lines(ROWS).encode())),
        path="rows.jsonl.zst",
        rows=ROWS,
    ),
    Form(
        name="zip of one file, and what macOS leaves in it",
        make=lambda: write("rows.zip", zipped({"rows.csv": table(ROWS), "__MACOSX/._rows.csv": "x"})),
        path="rows.zip",
        rows=ROWS,
        files=("rows",),
    ),
    Form(
        name="zip of several",
        make=lambda: write("rows.zip", zipped({"a.csv": table(ROWS), "b.csv": table(ROWS)})),
        path="rows.zip",
        says=("holds 2 files (a.csv, b.csv)", "data.path='rows.zip#a.csv'"),
    ),
    Form(
        name="gzip, cut off",
        make=lambda: write("rows.csv.gz", gzip.compress(table(ROWS).encode())[:-12]),
        path="rows.csv.gz",
        says=("broken gzip file",),
    ),
    # text
    Form(
        name="LoRA's text of E2E",
        make=lambda: write(
            "train.txt", "name : The Vaults | Type : pub||The Vaults is a pub . \nname : Zizzi||Zizzi .\n"
        ),
        path="train.txt",
        options={"template": "{lin} -> ", "response": "ref", "label": None},
        rows=[
            {"lin": "name : The Vaults | Type : pub", "ref": "The Vaults is a pub ."},
            {"lin": "name : Zizzi", "ref": "Zizzi ."},
        ],
    ),
    # several files
    Form(
        name="a folder, a file each client",
        make=many({"hospitals/site_10.csv": qa("south"), "hospitals/site_2.csv": qa("north")}),
        path="hospitals",
        options=QUESTIONS,
        rows=HOSPITALS,
        files=("site_2", "site_10"),
    ),
    Form(
        name="a pattern; files of one name are called by their folders",
        make=many({"sites/north/train.json": qa("north"), "sites/south/train.json": qa("south")}),
        path="sites/*/train.json",
        options=QUESTIONS,
        rows=HOSPITALS,
        files=("north", "south"),
    ),
    Form(
        name="a list, of several forms",
        make=many({"north.csv": qa("north"), "south.json": qa("south")}),
        path=["south.json", "north.csv"],
        options=QUESTIONS,
        rows=HOSPITALS,
        files=("north", "south"),
    ),
    Form(
        name="the folder of a federated data set with its test set",
        make=many(
            {"d/local_training_0.json": qa("a"), "d/local_training_1.json": qa("b"), "d/global_test.json": qa("t")}
        ),
        path="d",
        options=QUESTIONS,
        says=("give data.path='d/local_training_*.json' data.test_path=d/global_test.json",),
    ),
    Form(
        name="a folder with training, validation and test file",
        make=many({"d/train.csv": qa("a"), "d/validation.csv": qa("b"), "d/test.csv": qa("t")}),
        path="d",
        options=QUESTIONS,
        says=("give data.path=d/train.csv data.test_path=d/test.csv data.validation_path=d/validation.csv",),
    ),
    Form(
        name="a folder of folders",
        make=many({"sites/north/rows.json": qa("north"), "sites/south/rows.json": qa("south")}),
        path="sites",
        options=QUESTIONS,
        says=("a folder without a table", "give 'sites/*/rows.json'"),
    ),
    Form(
        name="a clone of a hub repository",
        make=lambda: (
            write("clone/README.md", "---\n"),
            write("clone/dataset_infos.json", "{}"),
            parquet("clone/data/train-00000-of-00002.parquet", COLUMNS),
            parquet("clone/data/train-00001-of-00002.parquet", COLUMNS),
            parquet("clone/data/test-00000-of-00001.parquet", COLUMNS),
        ),
        path="clone",
        says=(
            "data.path='clone/data/train-0000*-of-00002.parquet' data.test_path=clone/data/test-00000-of-00001.parq",
        ),
    ),
    Form(
        name="a file without rows among others",
        make=lambda: (write("d/a.csv", table(qa("a"))), write("d/b.csv", "question,answer\n")),
        path="d",
        options=QUESTIONS,
        says=("d/b.csv among 2 files has no rows",),
    ),
    Form(
        name="one name in two forms",
        make=many({"d/a.csv": qa("a"), "d/a.json": qa("a")}),
        path="d",
        options=QUESTIONS,
        says=("a.csv and a.json are of one name", "give data.path='d/*.csv'"),
    ),
    # none
    Form(
        name="a spreadsheet",
        make=lambda: write("rows.xlsx", zipped({"xl/workbook.xml": ""})),
        path="rows.xlsx",
        says=("a spreadsheet; save it as CSV UTF-8",),
    ),
    Form(
        name="pickled rows",
        make=lambda: write("rows.pkl", b"\x80\x04."),
        path="rows.pkl",
        says=("pickled",),
    ),
    Form(
        name="a pointer of Git LFS",
        make=lambda: write("rows.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        path="rows.parquet",
        says=("a pointer of Git LFS", "git lfs pull"),
    ),
]


def read(form: Form) -> ReadRows:
    return read_data(DataConfig(source="table", path=form.path, **form.options))


def refusal(form: Form) -> str:
    with pytest.raises(UserError) as caught:
        read(form)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_read_or_refused(form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    form.make()
    if form.rows is None:
        line = refusal(form)
        assert "\n" not in line
        assert len(line) <= 400
        assert [part for part in form.says if part not in line] == [], line
        return
    found = read(form)
    assert [repr(row) for row in found.rows] == [repr(row) for row in form.rows], "types too"
    assert len(found.files) == len(found.rows)
    assert form.files in ((), tuple(dict.fromkeys(found.files)))
    assert [part for part in form.says if part not in "\n".join(found.notices)] == []
    assert bool(found.notices) == bool(form.says)


WORDS = {str: "text", int: "integer", float: "number", list: "list", type(None): "null"}


def kinds(rows: list[dict[str, Any]]) -> str:
    """Return the columns of rows and the types of what they hold."""
    told = []
    for column in rows[0]:
        found = dict.fromkeys(WORDS[type(row[column])] for row in rows)
        told.append(f"{column} {' or '.join(found)}")
    return ", ".join(told)


def entry(form: Form) -> str:
    """Return the line of a form in the table, made in the working folder."""
    form.make()
    path = form.path if isinstance(form.path, str) else f"[{','.join(form.path)}]"
    if form.rows is None:
        line = re.sub(r"\((ArrowInvalid|Compressed file).*?\);", "(...);", refusal(form))  # a library's own words
        return f"| {form.name} | `{path}` | refused: {line} |"
    found = read(form)
    names = f"; clients {', '.join(dict.fromkeys(found.files))}" if len(set(found.files)) > 1 else ""
    notices = f"; told: {'; '.join(found.notices)}" if found.notices else ""
    return f"| {form.name} | `{path}` | {len(found.rows)} rows: {kinds(found.rows)}{names}{notices} |".replace(
        "||", "\\|\\|"
    )


def forms_table() -> str:
    """Return the table of all forms."""
    made = ["| form | `data.path` | what comes of it |", "|---|---|---|"]
    place = Path.cwd()
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                made.append(entry(form))
            finally:
                os.chdir(place)
    return "\n".join(made)


def test_the_page_has_this_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == forms_table()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(f"{text[: text.index(BEGIN) + len(BEGIN)]}\n{forms_table()}\n{text[text.index(END) :]}", "utf-8")
