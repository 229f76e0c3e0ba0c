"""Rows: files of every format with one part that is not as it should be, read by a dry run or trained on.

What a check overlooks stops a run when the row is first drawn, so half of the cases train.
"""

import csv
import gzip
import io
from typing import Any

import nasty
from cases import Case
from hypothesis import strategies as st
from option_words import merged
from runner import ROWS, SMALL, jsonl

TASKS = {
    "generation": ["data=jsonl"],
    "classes": ["data=texts", "model=bert-small", "model.weights=random", "data.text=[prompt]"],
    "pairs": ["data=texts", "model=bert-small", "model.weights=random", "data.text=[prompt,response]"],
    "numbers": ["data=texts", "model=bert-small", "model.weights=random", "data.text=[prompt]", "data.regression=true"],
}
OPTIONS = (
    *("data.template='{label}: {prompt}\\n'", "data.prompt=prompt", "data.response=label", "data.label=null"),
    *(
        "data.label=response",
        "data.required=[]",
        "data.drop_empty=true",
        "data.sample=5",
        "data.multiple_references=true",
    ),
    *("data.answer=number", "data.answer=boxed", "data.answer=option", "data.score_by=label", "data.classes=[a, b]"),
    *("partition.name=iid", "partition.name=natural", "partition.name=quantity", "partition.name=pathological"),
    *("partition.name=topics", "partition.column=label", "eval.protocol=teacher_forced", "eval.on=both"),
    *(
        "data.test_columns=[prompt=response]",
        "data.target=prompt",
        "data.scores=[accuracy]",
        "data.scores=[exact_match]",
    ),
)
NAMES = (
    *("rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.csv", "rows.parquet", "rows.tsv", "rows", "RÖWS .jsonl"),
    *(
        "rows.ndjson",
        "rows.txt",
        "rows.arrow",
        "rows.csv.bz2",
        "rows.zip",
        "rows.jsonl.zst",
        "rows#1.json",
        "r[o]ws.csv",
    ),
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """JSON Lines with a changed row, some of them on the level of bytes."""
    rows: list[Any] = [dict(row) for row in ROWS]
    number = draw(st.integers(0, len(rows) - 1))
    rows[number] = draw(nasty.mutated(rows[number]))
    if draw(st.booleans()):
        column = draw(st.sampled_from([*ROWS[0], "other"]))
        value = draw(nasty.json_values())
        rows = [{**row, column: value} if isinstance(row, dict) else row for row in rows]
    text = "\n".join(map(nasty.dumps, rows)).encode("utf-8", "surrogatepass")
    return draw(st.just(text) | st.just(text) | nasty.damaged(text))


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A CSV file whose cells hold quotes, line breaks and other separators."""
    buffer = io.StringIO(newline="")
    separator = draw(st.sampled_from([",", ";", "\t"]))
    writer = csv.writer(buffer, delimiter=separator)
    writer.writerow(draw(st.sampled_from([list(ROWS[0]), ["prompt", "prompt", "label"], ["prompt"], []])))
    for row in ROWS:
        writer.writerow(row.values())
    cells = draw(st.lists(st.sampled_from(nasty.TEXTS + nasty.NUMBERS) | nasty.free_text(), max_size=4))
    writer.writerow(cells)
    return draw(st.just(buffer.getvalue().encode()) | nasty.damaged(buffer.getvalue().encode()))


@st.composite
def parquet(draw: st.DrawFn) -> bytes:
    """A Parquet file with columns of other types."""
    import pyarrow as pa  # noqa: PLC0415  a quarter of a second, for some cases only
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns: dict[str, Any] = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    name = draw(st.sampled_from(list(columns)))
    cell = draw(st.sampled_from([1, 1.5, None, True, b"\xff", float("nan"), [1], {"a": "b"}, "x"]))
    columns[name] = [cell] * len(ROWS)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return draw(st.just(buffer.getvalue()) | nasty.damaged(buffer.getvalue()))


@st.composite
def contents(draw: st.DrawFn, name: str) -> bytes:
    """What a file of this name may hold: what its name says, or what another's does."""
    kind = name.partition(".")[2]
    if kind == "parquet":
        return draw(parquet())
    if kind in ("csv", "tsv"):
        return draw(tables())
    if kind == "json":
        value = draw(nasty.mutated(ROWS) | nasty.mutated({"data": ROWS, "version": 1}))
        return nasty.dumps(value).encode("utf-8", "surrogatepass")
    content = draw(lines())
    if kind == "jsonl.gz":
        return draw(nasty.damaged(gzip.compress(content, mtime=0)) | st.just(gzip.compress(content, mtime=0)))
    return content


@st.composite
def row_files(draw: st.DrawFn) -> Case:
    """A training file, or a test file beside a good training file."""
    name = draw(st.sampled_from(["rows.jsonl"] * 6 + list(NAMES)))
    files: dict[str, bytes | None] = {name: draw(contents(name))}
    words = [
        "local.steps=4",
        "local.batch_size=4",
        *TASKS[draw(st.sampled_from(["generation", "generation", *TASKS]))],
        f"data.path={name}",
    ]
    if not draw(st.integers(0, 3)):
        files = {"good.jsonl": jsonl(ROWS), **files}
        words[-1:] = ["data.path=good.jsonl", f"data.test_path={name}"]
    options = draw(st.lists(st.sampled_from(OPTIONS), max_size=2, unique_by=lambda word: word.partition("=")[0]))
    dry = draw(st.sampled_from([[], ["dry_run=true"]]))
    return Case(script="federate.py", words=merged(SMALL, [*words, *options, *dry]), files=files)
