"""Configurations: words of the command line over the real tree of options, and damaged files of configs/.

A value is the right kind for its key three times in five, so that cases get past the first check.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import nasty
import yaml
from cases import STDOUTS, Case
from hypothesis import strategies as st
from runner import SMALL

from fedlit.config import load_config, to_yaml
from fedlit.config.checks import LOGGERS, valid_values
from fedlit.config.keys import is_list, is_mapping, run_keys, run_options
from fedlit.config.loading import CONFIG_DIR, GROUPS, list_choices
from fedlit.recipes import all_options
from fedlit.scores import SCORES

TEXTS: Mapping[str, tuple[str, ...]] = {
    "data.scores": tuple(SCORES),
    "eval.score": (*SCORES, "loss"),
    "method.target_modules": (
        *all_options()["target_modules"].valid,
        "up",
        "model",
        "q_proj",
        "lm_head",
        "embed_tokens",
        "norm",
    ),
    "logging.loggers": LOGGERS,
    "data.path": ("rows.jsonl", "nowhere.jsonl", ".", "pair.yaml"),
    "data.test_path": ("rows.jsonl", "nowhere.jsonl"),
    "partition.path": ("rows.jsonl", "pair.yaml", "nowhere.json"),
    "model.path": ("tiny", "./nowhere", ".", "owner/name"),
    "model.tokenizer": ("tiny", "./nowhere", ".", "owner/name"),
    "run.dir": ("runs", "~/runs", "rows.jsonl", "rows.jsonl/x", "/dev/full/x"),
    "cohort.sampling": ("fixed", "poisson"),
    "method.optimizer": ("adamw", "sgd", "galore", "rmsprop"),
    "method.rule": ("fedavg", "fedex", "flora"),
    "method.adapter": ("lora", "dense"),
}
"""Texts for keys whose valid values stand in no table of the package."""

PATH_KEYS = (
    "data.path",
    "data.test_path",
    "partition.path",
    "model.path",
    "model.tokenizer",
    "run.dir",
    "run.name",
    "plugins",
)
COLUMNS = ("prompt", "response", "label", "nothing")

SLOW = (
    "num_rounds",
    "local.steps",
    "local.epochs",
    "eval.max_new_tokens",
    "compute.devices",
    "compute.num_nodes",
    "compute.threads",
)
SAFE_ONLY = ("run.dir", "run.name", "logging.wandb", "logging.loggers", "compute.timeout_s", "plugins")
"""Keys that a run which is no dry run leaves alone: with them it takes long, or writes and reads elsewhere."""


@cache
def option_keys() -> dict[str, Any]:
    """Return every dotted key of a run of any method, and what it accepts."""
    return run_keys(all_options())


@cache
def choices(group: str) -> list[str]:
    """Return the names of a group's files, short ones first."""
    return sorted(list_choices(CONFIG_DIR, group), key=len)


PLAIN: Mapping[Any, st.SearchStrategy[str]] = {
    type(None): st.just("null"),
    bool: st.sampled_from(["true", "false"]),
    int: st.integers(0, 6).map(str) | st.integers(-3, 10**9).map(str),
    float: st.sampled_from(["0.5", "0.01", "1", "0", "1e-3", "2", "-0.5"]) | st.floats().map(repr),
    Any: st.sampled_from(["1", "null", "x", "[1]"]),
}
"""Values by type, most of them in range."""


def valid_words(key: str, hint: Any) -> st.SearchStrategy[str]:
    """Values of the right kind, most of them in range."""
    if is_mapping(hint):
        return st.sampled_from(["{}", "{rate: 0.2}", "{a: {b: 1}}"])
    if is_list(hint):
        entries = valid_words(key, get_args(hint)[0])
        return st.lists(entries, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
    if get_args(hint):
        return st.one_of(*(valid_words(key, part) for part in get_args(hint)))
    known = valid_values("causal_lm", run_options(all_options())).get(key, ()) or TEXTS.get(key, COLUMNS)
    return PLAIN.get(hint, st.sampled_from(known))


@st.composite
def option(draw: st.DrawFn) -> str:
    """Any key with a value of its kind, or another."""
    key = draw(st.sampled_from(sorted(option_keys())))
    right = draw(st.integers(0, 4)) < 3
    return f"{key}={draw(valid_words(key, option_keys()[key]) if right else nasty.words())}"


@st.composite
def choice(draw: st.DrawFn) -> str:
    """A group's file."""
    group = draw(st.sampled_from(GROUPS))
    return f"{group}={draw(st.sampled_from(choices(group)) | nasty.words())}"


@st.composite
def section(draw: st.DrawFn) -> str:
    """A part of the tree as a mapping, or as something else."""
    name = draw(st.sampled_from(sorted({key.rpartition(".")[0] for key in option_keys()} - {""})))
    key = draw(st.sampled_from(sorted(key for key in option_keys() if key.startswith(f"{name}."))))
    inner = f"{key.removeprefix(f'{name}.')}: {draw(nasty.words())}"
    return f"{name}={draw(st.sampled_from([f'{{{inner}}}', inner]) | nasty.words())}"


@st.composite
def path(draw: st.DrawFn) -> str:
    """A file or folder that is another thing, or nothing."""
    return f"{draw(st.sampled_from(PATH_KEYS))}={draw(st.sampled_from(nasty.PATHS) | nasty.words())}"


@st.composite
def number(draw: st.DrawFn) -> str:
    """A number written in a way that a number should not be."""
    keys = sorted(key for key, hint in option_keys().items() if {int, float} & {hint, *get_args(hint)})
    written = draw(st.sampled_from([*nasty.NUMBERS, *nasty.HUGE, nasty.FULL_WIDTH]))
    return f"{draw(st.sampled_from(keys))}={written}"


@st.composite
def other(draw: st.DrawFn) -> str:
    """A word that sets nothing."""
    key = draw(st.sampled_from(["seeds", "local.", ".", "method.options", "method.x", "--seed"]) | nasty.words())
    return draw(st.sampled_from([f"{key}=1", key, f"{key}="]))


def settings() -> st.SearchStrategy[str]:
    """One word of a command line."""
    kinds = [option] * 5 + [choice, section, path, number, other]
    return st.sampled_from(kinds).flatmap(lambda kind: kind())


def key_of(word: str) -> str:
    return word.partition("=")[0]


def merged(defaults: list[str], words: list[str]) -> tuple[str, ...]:
    """Return the defaults that the words do not give, and the words."""
    given = {key_of(word) for word in words}
    return (*(word for word in defaults if key_of(word) not in given), *words)


def real_words() -> st.SearchStrategy[str]:
    """Words for a run that trains."""
    left_alone = (*SLOW, *SAFE_ONLY)
    outside = ("plugins", "run", "logging", "compute", "local", "eval", "experiment", "model.path", "model.tokenizer")
    return settings().filter(lambda word: not key_of(word).startswith(left_alone) and key_of(word) not in outside)


def words_of(one: st.SearchStrategy[str], most: int) -> st.SearchStrategy[list[str]]:
    """Some words of different keys."""
    return st.lists(one, min_size=1, max_size=most, unique_by=key_of)


@st.composite
def command_lines(draw: st.DrawFn) -> Case:
    """One to four words over a small run; one in six trains."""
    if not draw(st.integers(0, 5)):
        return Case(script="federate.py", words=merged(SMALL, draw(words_of(real_words(), 3))))
    words = draw(words_of(settings(), 4))
    stdout = draw(st.sampled_from(["file"] * 12 + list(STDOUTS)))
    return Case(script="federate.py", words=(*merged(SMALL, words), "dry_run=true"), stdout=stdout)


@st.composite
def changed_yaml(draw: st.DrawFn, text: str) -> bytes:
    """A YAML file with a value replaced, a line more, another shape, or damaged bytes."""
    how = draw(st.sampled_from(["value", "line", "shape", "bytes"]))
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if how == "bytes":
        return draw(nasty.damaged(text.encode()))
    if how == "shape":
        value = draw(nasty.mutated(yaml.safe_load(text)))
        return nasty.dumps(value).encode("utf-8", "surrogatepass")
    number = draw(st.integers(0, len(lines) - 1))
    if how == "value":
        lines[number] = f"{lines[number].partition(':')[0]}: {draw(nasty.words())}"
    else:
        key = draw(st.sampled_from(sorted(option_keys())) | nasty.words())
        lines.insert(number, f"{key}: {draw(nasty.words())}")
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


@st.composite
def config_files(draw: st.DrawFn) -> Case:
    """A file of a group or an experiment, changed, under its own name or another."""
    group = draw(st.sampled_from(GROUPS))
    choice = draw(st.sampled_from(choices(group)))
    content = draw(changed_yaml((Path(CONFIG_DIR) / group / f"{choice}.yaml").read_text()))
    words = merged(SMALL if group != "data" else SMALL[:-2], [f"{group}=x"])
    return Case(script="load_files.py", words=words, files={f"configs/{group}/x.yaml": content})


@cache
def whole_configuration() -> str:
    """Return the config.yaml of a run."""
    return to_yaml(load_config(["experiment=demo"]))


@st.composite
def own_files(draw: st.DrawFn) -> Case:
    """A user's own file, changed, or the whole configuration of a run, by its path or in the search path."""
    experiment = (Path(CONFIG_DIR) / "experiment" / "demo.yaml").read_text()
    content = draw(changed_yaml(draw(st.sampled_from([experiment, f"experiment: demo\n{experiment}"]))))
    if not draw(st.integers(0, 3)):
        content = draw(changed_yaml(whole_configuration()))
    place, own = draw(
        st.sampled_from(
            [
                ("my.yaml", ["my.yaml"]),
                ("my.yaml", ["experiment=my.yaml"]),
                ("mine/my.yml", ["rows.yaml", "mine/my.yml"]),
                ("mine/experiment/x.yaml", ["--config-dir", "mine", "experiment=x"]),
                ("mine/data/x.yaml", ["--config-dir=mine", "data=x"]),
                (
                    "mine/x.yaml",
                    [draw(st.sampled_from(["--config-dir=mine", "--config-dir", "my.yaml", "mine/y.yaml"]))],
                ),
            ]
        )
    )
    how = draw(st.sampled_from([["dry_run=true"], ["--explain"], ["--explain=json"]]))
    words = merged(SMALL, draw(st.lists(settings(), max_size=2, unique_by=key_of)))
    files = {place: content, "rows.yaml": b"num_rounds: 1\n"}
    given = {key_of(word) for word in own}
    return Case(script="federate.py", words=(*own, *(w for w in words if key_of(w) not in given), *how), files=files)


def configurations() -> st.SearchStrategy[Case]:
    """Command lines three times in five, files else."""
    kinds = [command_lines] * 3 + [config_files, own_files]
    return st.sampled_from(kinds).flatmap(lambda kind: kind())
