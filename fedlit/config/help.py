"""The text of `fedlit run --help`, made of the schema's docstrings and the YAML files' comments."""

import ast
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from fedlit.config.keys import INT_OR_LIST, TEXT_OR_LIST, describe, option_keys, run_keys, show
from fedlit.config.loading import CONFIG_DIR, DEFAULT_CHOICES, GROUPS, list_choices, method_options, read_choice
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig

WIDTH = 100

INTRODUCTION = """\
Federated fine-tuning of one foundation model across clients that keep their data apart.

usage: fedlit run [--config-dir DIR] [--explain] [FILE.yaml ...] [group=choice ...] [key=value ...]

examples:
  fedlit run
  fedlit run my.yaml num_rounds=20 --explain     (where every value comes from; nothing is run)
  fedlit run runs/first/config.yaml run.name=again              (the same run, the same bits)
  fabric run --accelerator=cpu --devices=2 experiments/federate.py data=medquad \\
      data.path=medquad.jsonl.gz num_clients=3 num_rounds=5 local.steps=10
  torchrun --standalone --nproc-per-node=2 -m fedlit run experiment=demo

What stands further down this list wins: the defaults below, the files of data, model and method,
the experiment file, your own files in their order, the command line. The order of key=value does
not matter. A choice that ends in .yaml or .yml is the path of a file (data=my.yaml), seen from the
working folder, or from that of the file in which it stands. Names are looked up in the folders of
--config-dir and FEDLIT_CONFIG_PATH, which look like configs/, before the shipped ones.

Values: 10, 1e-3, true, null for none, [a, b] for a list. Text is taken as it stands; in double
quotes (inside the shell's own) \\n is a line break. ??? is for you to give.
"""


def help_text(config_dir: Path = CONFIG_DIR) -> str:
    """Return the help: usage, groups with their choices, every dotted key, every option of the methods; 100 columns."""
    lines = [INTRODUCTION, "Groups (group=choice picks configs/<group>/<choice>.yaml):"]
    for group in GROUPS:
        lines += ["", f"  {group}"]
        for choice, path in list_choices(config_dir, group).items():
            default = " (default)" if DEFAULT_CHOICES.get(group) == choice else ""
            lines += _entry(choice, first_comment(path.read_text(encoding="utf-8")) + default, column=20)
    lines += ["", "Keys (key=default, where no file of a group or experiment says otherwise):"]
    lines += _schema_entries()
    lines += ["", "Options of the methods:"]
    lines += _option_entries(config_dir)
    return "\n".join(lines) + "\n"


def first_comment(text: str) -> str:
    """Return the first line's comment without its sign, or ''."""
    first = text.partition("\n")[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


def key_docs(section: type, prefix: str = "") -> dict[str, str]:
    """Return every dotted key below a configuration dataclass and the docstring below its field, or ''."""
    definition = ast.parse(inspect.getsource(section)).body[0]
    assert isinstance(definition, ast.ClassDef)
    hints = get_type_hints(section)
    docs: dict[str, str] = {}
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        doc = ast.literal_eval(following.value) if isinstance(following, ast.Expr) else ""
        docs |= key_docs(hints[name], f"{prefix}{name}.") if is_dataclass(hints[name]) else {prefix + name: doc}
    return docs


def option_comments(text: str, prefix: str = "method.") -> dict[str, str]:
    """Return the dotted keys of a YAML mapping and the comment on each key's line, else the one above it, or ''."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return dict(_comments(node, text.splitlines(), prefix)) if isinstance(node, yaml.MappingNode) else {}


def _comments(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield dotted key and comment for every value of a mapping node, depth first."""
    for key, value in node.value:
        mark = value.end_mark if value.end_mark.line == key.end_mark.line else key.end_mark
        comment = lines[mark.line][mark.column :].partition("# ")[2].strip()
        above = takewhile(lambda line: line.lstrip().startswith("#"), reversed(lines[: mark.line]))
        yield f"{prefix}{key.value}", comment or " ".join(line.strip("# ") for line in reversed(list(above)))
        if isinstance(value, yaml.MappingNode):
            yield from _comments(value, lines, f"{prefix}{key.value}.")


def _schema_entries() -> list[str]:
    """Return the lines on every key of the schema, the run's own keys first, then section by section."""
    keys, docs, defaults = run_keys({}), key_docs(RunConfig), flat_values(RunConfig())
    sections = {name: hint for name, hint in get_type_hints(RunConfig).items() if is_dataclass(hint)}
    lines: list[str] = []
    for section in ("", *sections):
        lines += ["", *_wrap(f"{section}: {sections[section].__doc__}" if section else "of the run", indent=2)]
        for key in keys:
            if key.rpartition(".")[0] == section:
                lines += _entry(f"{key}={show(defaults[key])}", f"{docs[key]} ({describe(keys[key])})")
    return lines


def _option_entries(config_dir: Path) -> list[str]:
    """Return the lines on the methods' options; those that several methods share stand once, under all their names."""
    methods: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, path in list_choices(config_dir, "method").items():
        options = method_options(read_choice(config_dir, "method", name))
        comments = option_comments(path.read_text(encoding="utf-8"))
        for key, (default, kind) in _option_defaults(options).items():
            methods[f"{key}={show(default)}", f"{comments[key]} ({kind})"].append(name)
    shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (left, right), names in methods.items():
        shared[tuple(names)] += _entry(left, right)
    lines: list[str] = []
    for sharing, entries in shared.items():
        lines += ["", *_wrap(", ".join(sharing), indent=2), *entries]
    return lines


def _option_defaults(options: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Return a recipe's dotted options, each with its default and type; a comment says where a list will do."""
    found: dict[str, tuple[Any, str]] = {}
    for key, hint in option_keys(options).items():
        value: Any = options
        for part in key.split(".")[1:]:
            value = value[part]
        found[key] = (value, describe({TEXT_OR_LIST: str, INT_OR_LIST: int}.get(hint, hint)))
    return found


def _wrap(text: str, indent: int) -> list[str]:
    """Return a paragraph."""
    margin = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)


def _entry(left: str, right: str, indent: int = 4, column: int = 40) -> list[str]:
    """Return an entry in two columns; a long left side stands on a line of its own."""
    left = " " * indent + left
    wrapped = textwrap.wrap(right, WIDTH - column, break_on_hyphens=False) or [""]
    if len(left) < column - 1:
        wrapped[0] = left.ljust(column) + wrapped[0]
        return [wrapped[0].rstrip(), *(" " * column + line for line in wrapped[1:])]
    return [left, *(" " * column + line for line in wrapped)]
