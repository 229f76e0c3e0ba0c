"""The scripts of experiments/ with words, folders and files in any order."""

import nasty
from cases import STDOUTS, Case
from hypothesis import strategies as st
from option_words import changed_yaml, key_of, settings
from runner import COMPARED, PAIR, SMALL

SWEEP = """\
experiment: demo
base:
  num_rounds: 2
axes:
  method: [fedit, {name: scl, lora_rank: 2}]
  seed: [0, 1]
exclude:
  - {method: fedit, seed: 1}
extra:
  - {method: full, seed: 0}
"""
TARGETS = (
    "pair.yaml",
    "x.yaml",
    "own",
    "demo",
    "fedex_glue",
    "runs/pair",
    "runs",
    "runs/pair/pair-fedit",
    ".",
    "rows.jsonl",
    "folder",
)
PATHS = ("out", "out.md", "folder", "/dev/null", "no/such/folder/x", *nasty.PATHS)
OPTIONS = {
    "sweep.py": (
        "--config-dir",
        "--as-in-file",
        "--only-unfinished",
        "--dry-run",
        "--local",
        "--index",
        "--jobs",
        "--devices",
        "--max-parallel",
        "--sbatch",
    ),
    "report.py": ("--config-dir", "--output", "--score", "--round", "--no-figures"),
    "dashboard.py": ("--config-dir", "--output", "--wandb", "--project", "--entity"),
    "compare.py": ("--config-dir", "--methods", "--lrs", "--devices", "--jobs", "--score", "--output", "--picture"),
    "prefetch.py": ("--config-dir", "--dry-run"),
}
FLAGS = ("--as-in-file", "--only-unfinished", "--dry-run", "--local", "--no-figures")
COMMANDS = ("list", "count", "show", "status", "submit", "run", "lst")
VALUES = {
    "--config-dir": ("mine", "mine", *PATHS),
    "--output": PATHS,
    "--picture": (*PATHS, "out.png"),
    "--score": ("loss", "rouge_l", "f1_macro", "accuracy/x", "loss/x"),
    "--round": ("last", "best"),
    "--methods": ("fedit", "fedit,ffa_lora", "fedit,fedit", "fedit,", ","),
    "--lrs": ("0.001", "0.1,0.01", "x", ",", "0,-1", "0.1,0.1"),
    "--sbatch": ("--time=1", "-x", ""),
}
NUMBERS = ("1", "0", "-1", "7", "1.5", "2x", "３", "9" * 30)


@st.composite
def option(draw: st.DrawFn, script: str) -> list[str]:
    """One option of a script with its value, joined or apart."""
    name = draw(st.sampled_from(OPTIONS[script]))
    if name in FLAGS:
        return [name]
    value = draw(
        st.sampled_from(VALUES.get(name, NUMBERS)) | st.sampled_from(VALUES.get(name, NUMBERS)) | nasty.words()
    )
    return draw(st.sampled_from([[f"{name}={value}"], [name, value], [name]]))


@st.composite
def scripts(draw: st.DrawFn) -> Case:
    """A command with a target, options and key=value words; the files named x.yaml and `folder` are there."""
    script = draw(st.sampled_from(list(OPTIONS)))
    words: list[str] = []
    if script == "sweep.py":
        words += [draw(st.sampled_from(COMMANDS) | nasty.words())]
    if script != "compare.py":
        words += [draw(st.sampled_from(TARGETS) | st.sampled_from(TARGETS) | nasty.words())]
    for _ in range(draw(st.integers(0, 2))):
        words += draw(option(script))
    others = settings().filter(lambda word: not word.startswith("dry_run"))
    words += draw(st.lists(others, max_size=2, unique_by=key_of))
    if script == "sweep.py" and "run" in words:
        # Cells that train have the words of a small run, after all others: a word given twice is refused.
        given = {key_of(word) for word in words}
        words += ["dry_run=true", *(word for word in SMALL if key_of(word) not in given)]
    if script == "compare.py":
        words += draw(st.sampled_from([[], [*SMALL, *COMPARED]]))
    if script == "prefetch.py":
        words += draw(st.sampled_from([["--dry-run"], ["--dry-run"], []]))
    files: dict[str, bytes | None] = {"folder": None}
    if any(word.startswith("--config-dir") for word in words):
        files["mine/sweep/own.yaml"] = draw(changed_yaml(SWEEP))
    if "x.yaml" in words:
        files["x.yaml"] = draw(changed_yaml(draw(st.sampled_from([SWEEP, PAIR]))))
    stdout = draw(st.sampled_from(["file"] * 12 + list(STDOUTS)))
    runs = draw(st.booleans())
    return Case(script=script, words=tuple(words), files=files, runs=runs, stdout=stdout)
