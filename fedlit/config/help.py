"""The text of `fedlit run --help`: choices, every key of the schema with its docstring, every option of the methods."""

import ast
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import get_type_hints

import yaml

from fedlit.config import data_schema, method_schema, privacy_schema, schema
from fedlit.config.keys import SCHEMA, describe, parts, show
from fedlit.config.loading import CONFIG_DIR, DEFAULT_CHOICES, GROUPS, list_choices, read_choice
from fedlit.config.options import option_defaults, picked_method
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig
from fedlit.options import Option, flat
from fedlit.recipes import options_taken

SECTIONS = {name: hint for name, hint in get_type_hints(RunConfig).items() if is_dataclass(hint)}
"""The dataclass of each section of keys."""

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
        lines += choice_entries(config_dir, group)
    lines += ["", "Keys (key=default, where no file of a group or experiment says otherwise):"]
    for section in ("", *SECTIONS):
        lines += section_entries(section)
    lines += ["", "Options of the methods:"]
    lines += _option_entries(config_dir)
    return "\n".join(lines) + "\n"


def choice_entries(config_dir: Path, group: str) -> list[str]:
    """Return the lines on a group's choices."""
    lines = ["", f"  {group}"]
    for choice, path in list_choices(config_dir, group).items():
        default = " (default)" if DEFAULT_CHOICES.get(group) == choice else ""
        lines += _entry(choice, first_comment(path.read_text(encoding="utf-8")) + default, column=20)
    return lines


def first_comment(text: str) -> str:
    """Return the first sentence of the comment at the top of a file, or ''."""
    lines = takewhile(lambda line: line.startswith("#") and line.strip("# "), text.splitlines())
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=[.?!]) (?=[A-Z0-9]|\w+: )", comment, maxsplit=1)[0]


@cache
def _field_docs() -> dict[str, dict[str, str]]:
    """Return the docstring below each field of each dataclass of the schema."""
    found: dict[str, dict[str, str]] = {}
    modules = (data_schema, method_schema, privacy_schema, schema)
    definitions = [node for module in modules for node in ast.parse(inspect.getsource(module)).body]
    for definition in definitions:
        if isinstance(definition, ast.ClassDef):
            docs = found.setdefault(definition.name, {})
            for statement, following in pairwise([*definition.body, ast.Pass()]):
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    text = ast.literal_eval(following.value) if isinstance(following, ast.Expr) else ""
                    docs[statement.target.id] = " ".join(text.split())
    return found


def key_docs(section: type, prefix: str = "") -> dict[str, str]:
    """Return every dotted key below a dataclass of the schema and the docstring below its field, or ''."""
    hints = get_type_hints(section)
    docs: dict[str, str] = {}
    for name, doc in _field_docs()[section.__name__].items():
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


def section_entries(section: str) -> list[str]:
    """Return the lines on a section and each of its keys; '' is the run itself."""
    docs, defaults = key_docs(RunConfig), flat_values(RunConfig())
    what = f"{section}: {SECTIONS[section].__doc__}" if section else "of the run"
    lines = ["", *paragraph(what, indent=2)]
    for key, option in SCHEMA.items():
        if key.rpartition(".")[0] == section:
            lines += option_entry(key, replace(option, default=defaults[key], help=docs[key]))
    return lines


def option_entry(key: str, option: Option) -> list[str]:
    """Return the lines on one key: its default, meaning, type, range and valid values."""
    kind = kind_of(option)
    if option.valid and not all(re.search(rf"\b{re.escape(name)}\b", option.help) for name in option.valid):
        kind = f"{kind}: {', '.join(option.valid)}"
    return _entry(f"{key}={show(option.default)}", f"{option.help} ({kind})".lstrip())


def kind_of(option: Option) -> str:
    """Return type and range of an option in words."""
    if option.range is None:
        return describe(option.hint)
    others = [describe(part) for part in parts(option.hint) if part not in (int, float)]
    return ", or ".join([option.range.brief, *others])


def recipe_options(config_dir: Path, choice: str) -> dict[str, Option]:
    """Return the options of a method's own parts, with the defaults of its file."""
    file = read_choice(config_dir, "method", choice)
    method = picked_method(file.content, file.origin)
    given, taken = flat(file.content), options_taken(method)
    return {
        name: replace(taken[name], default=given.get(name, default))
        for name, default in option_defaults(method, file.content, ()).items()
    }


def _option_entries(config_dir: Path) -> list[str]:
    """Return the lines on the methods' options; those that several methods share stand once, under all their names."""
    methods: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in list_choices(config_dir, "method"):
        for option, found in recipe_options(config_dir, name).items():
            methods[tuple(option_entry(f"method.{option}", found))].append(name)
    shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry, names in methods.items():
        shared[tuple(names)] += entry
    lines: list[str] = []
    for sharing, entries in shared.items():
        lines += ["", *paragraph(", ".join(sharing), indent=2), *entries]
    return lines


def paragraph(text: str, indent: int = 2) -> list[str]:
    """Return a paragraph."""
    margin = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)


def _entry(left: str, right: str, indent: int = 4, column: int = 40) -> list[str]:
    """Return an entry in two columns; a long left side stands on a line of its own."""
    left = " " * indent + left
    wrapped = textwrap.wrap(" ".join(right.split()), WIDTH - column, break_on_hyphens=False) or [""]
    if len(left) < column - 1:
        wrapped[0] = left.ljust(column) + wrapped[0]
        return [wrapped[0].rstrip(), *(" " * column + line for line in wrapped[1:])]
    return [left, *(" " * column + line for line in wrapped)]
