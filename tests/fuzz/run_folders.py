"""Run folders: one file of finished runs is damaged, then a command looks at them or goes on with them."""

import json
from pathlib import Path
from typing import Any

import nasty
from cases import Case
from hypothesis import strategies as st
from option_words import changed_yaml
from runner import COMPARED, SMALL

RUNS = "runs/pair/pair-fedit"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("sweep.py", "status", "pair.yaml", "--as-in-file", *SMALL),
    ("sweep.py", "run", "pair.yaml", "--index=0", *SMALL),
    (
        "sweep.py",
        "run",
        "pair.yaml",
        "--index=0",
        *(word for word in SMALL if "num_rounds" not in word),
        "num_rounds=3",
    ),
    ("sweep.py", "submit", "pair.yaml", "--dry-run", "--only-unfinished", *SMALL),
    ("sweep.py", "run", "pair.yaml", "--local", *SMALL),
    ("report.py", "runs/pair", "--no-figures"),
    ("report.py", RUNS, "--round=best"),
    ("report.py", "pair.yaml", "--no-figures", *SMALL),
    ("dashboard.py", "runs/pair"),
    ("dashboard.py", "pair.yaml"),
    ("compare.py", "--methods=fedit", "--output=table.md", *SMALL, *COMPARED),
)
EXTRA = (
    "../sweep.json",
    "lock.json",
    "wandb/run_id",
    "csv/metrics.csv",
    "plots",
    ".status.json.1.partial",
    "table.csv",
)
"""Files that some runs have and these do not."""


@st.composite
def changed(draw: st.DrawFn, path: Path) -> bytes | None:
    """What stands where the file was; None is a folder."""
    how = draw(st.sampled_from(["shape", "bytes", "folder", "shape"]))
    if how == "folder":
        return None
    content = path.read_bytes() if path.is_file() else b"{}"
    if how == "bytes" or path.suffix in (".safetensors", ".parquet"):
        return draw(nasty.damaged(content))
    if path.suffix == ".yaml":
        return draw(changed_yaml(content.decode()))
    if path.suffix == ".jsonl":
        records = [json.loads(line) for line in content.decode().splitlines()]
        number = draw(st.integers(0, len(records) - 1))
        records[number] = draw(nasty.mutated(records[number]))
        return "\n".join(map(nasty.dumps, records)).encode("utf-8", "surrogatepass")
    value: Any = json.loads(content) if path.suffix == ".json" else content.decode()
    other = draw(nasty.json_values() | nasty.mutated(value))
    return nasty.dumps(other).encode("utf-8", "surrogatepass")


@st.composite
def run_folders(draw: st.DrawFn, template: Path) -> Case:
    """A file of the run that every command looks at, changed or gone."""
    script, *words = draw(st.sampled_from(COMMANDS))
    folder = "runs/compared/fedit" if script == "compare.py" else RUNS
    # What lies at the top people edit and copy, and the newest checkpoint is the one that is read.
    top = sorted(path.name for path in (template / folder).iterdir() if path.is_file())
    below = sorted(str(path.relative_to(template / folder)) for path in (template / folder).glob("*/**/*"))
    newest = [name for name in below if name.startswith("checkpoints/round-0002/")]
    path = f"{folder}/{draw(st.sampled_from(top) | st.sampled_from(newest) | st.sampled_from([*EXTRA, *below]))}"
    if not draw(st.integers(0, 6)):
        return Case(script=script, words=tuple(words), runs=True, removed=(path,))
    content = draw(changed(template / path))
    return Case(script=script, words=tuple(words), runs=True, files={path: content})
