"""What `fedlit help` tells of one word: a group, a section, a choice, a part, a key."""

import ast
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from fedlit.config.help import (
    SECTIONS,
    choice_entries,
    first_comment,
    help_text,
    key_docs,
    option_entry,
    paragraph,
    recipe_options,
    section_entries,
)
from fedlit.config.keys import SCHEMA, nearest, show
from fedlit.config.loading import CONFIG_DIR, GROUPS, list_choices, module_names, read_choice, split_arguments
from fedlit.config.options import picked_method
from fedlit.config.reading import parse_yaml, read_file
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig
from fedlit.errors import UserError
from fedlit.options import flat, options_of
from fedlit.outside.kinds import KINDS
from fedlit.outside.loading import describe_installed, find_parts, load_plugins
from fedlit.recipes import TABLES, WEIGHTING, Part, known, parts_of, recipe_of
from fedlit.registry import registered


def help_on(words: Sequence[str], config_dir: Path = CONFIG_DIR) -> str:
    """Return the help on some words, on everything without any; `plugins=[module]` makes parts from outside known.

    Raises:
        UserError: a word that names nothing, with the nearest that does.
    """
    topics = [word for word in words if not word.startswith("plugins=")]
    for word in (word for word in words if word.startswith("plugins=")):
        modules = parse_yaml(split_arguments([word])["plugins"], f"{show(word)} (command line)")
        load_plugins(module_names(modules, "command line"))
    if not topics:
        found = describe_installed()
        told = ["Installed plugins, each imported when a configuration names one of its parts:", *found]
        return help_text(config_dir) + ("\n".join(told) + "\n" if found else "")
    blocks = ["\n".join(_topic(word, config_dir)).strip("\n") for word in topics]
    return "\n\n".join(blocks) + "\n"


def _topic(word: str, config_dir: Path) -> list[str]:
    name, equals, value = word.partition("=")
    kind = _kind_named(name, value.strip("[]"))
    if equals and name in GROUPS:
        return _choice(config_dir, name, value)
    if equals and kind in KINDS:
        return _part(kind, value.strip("[]"))
    if name in GROUPS:
        lines = choice_entries(config_dir, name)
        lines += section_entries(name) if name in SECTIONS else []
        return [*lines, *(_parts() if name == "method" else [])]
    if name in SECTIONS:
        return section_entries(name)
    if kind in KINDS and name not in SCHEMA:
        return _outside_kind(kind)
    return _keys(name)


def _kind_named(name: str, value: str) -> str:
    """Return the kind of part that a word means: `rule`, `method.rule`, or the key by which a part is chosen."""
    outside = (kind for kind, wanted in KINDS.items() if name in wanted.keys and value in registered(kind))
    return next(outside, name.removeprefix("method.").replace("transforms", "transform").removeprefix("cohort."))


def _choice(config_dir: Path, group: str, choice: str) -> list[str]:
    """Return the lines on one file of a group: of a method its parts and their options, of others what they set."""
    file = read_choice(config_dir, group, choice)
    path = list_choices(config_dir, group).get(choice)  # a recipe from outside has none
    comment = first_comment(read_file(path, file.origin)) if path else _recipe_help(choice, file.origin)
    lines = [*paragraph(f"{group}={choice}: {comment}"), ""]
    if group != "method":
        return [
            *lines,
            *paragraph(f"{file.origin} sets:"),
            *(f"    {k}={show(v)}" for k, v in flat(file.content).items()),
        ]
    recipe = recipe_of(picked_method(file.content, file.origin))
    lines += [f"    method.{kind if kind != 'transform' else 'transforms'}={name}" for kind, name in recipe.parts()]
    lines += ["", *paragraph("Options:")]
    for name, option in recipe_options(config_dir, choice).items():
        lines += option_entry(f"method.{name}", option)
    return lines


def _recipe_help(name: str, origin: str) -> str:
    told: str = registered("recipe")[name].help
    return f"{told} (from outside, {origin})" if told else f"a recipe from outside ({origin})"


def _parts() -> list[str]:
    """Return the names of all parts of methods."""
    lines = ["", *paragraph("Parts (fedlit help rule=fedex_lora tells one's options):")]
    return [*lines, *(line for kind in TABLES for line in _kind(kind))]


def _kind(kind: str) -> list[str]:
    """Return the names of the parts of one kind that are known."""
    return paragraph(f"{kind}: {', '.join(parts_of(kind) if kind in TABLES else registered(kind)) or 'none'}", indent=4)


def _outside_kind(kind: str) -> list[str]:
    """Return the names of one kind, and the installed plugins, whose parts are not known before they are imported."""
    found = [f"    {line}" for line in describe_installed()]
    told = paragraph("Installed plugins, whose parts are listed with plugins=[module]:", indent=4) if found else []
    return [*_kind(kind), *told, *found]


def _part(kind: str, name: str) -> list[str]:
    """Return the lines on a part: what it does, and its options."""
    in_method = kind in TABLES
    find_parts({KINDS[kind].keys[0]: name})
    parts = parts_of(kind) if in_method else {key: Part(factory) for key, factory in registered(kind).items()}
    part = parts[known(name, parts, kind)]
    prefix = "method." if in_method else ""
    options = part.own_options() if in_method else options_of(part.options, without=())
    lines = [*paragraph(f"{kind}={name}: {_purpose(part)}"), ""]
    if options and not in_method:
        lines += paragraph(f"Options, given as {KINDS[kind].options}={{name: value}}:")
    for key, option in options.items():
        lines += option_entry(prefix + key, option)
    return lines if options else [*lines, *paragraph("It has no options.")]


def _purpose(part: Part) -> str:
    """Return the first paragraph of the docstring of what builds a part, whose module need not be imported."""
    module, _, name = part.built_by.partition(":")
    if not module:
        doc = part.options.__doc__ or ""
        made_up = doc.startswith(f"{part.options.__name__}(")  # what a dataclass gets that has no docstring
        return "a part without a docstring" if made_up else " ".join(doc.strip().partition("\n\n")[0].split())
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return " ".join((ast.get_docstring(found) or "").partition("\n\n")[0].split())


def _keys(name: str) -> list[str]:
    """Return the lines on one key, or on an option of that name in each part that has it."""
    if name in SCHEMA:
        return _schema_entry(name)
    wanted, lines = name.removeprefix("method."), []
    for kind in TABLES:
        having: dict[tuple[str, ...], list[str]] = {}
        for part_name, part in parts_of(kind).items():
            named = [one for key, one in part.own_options().items() if key == wanted or key.startswith(f"{wanted}.")]
            entry = tuple(line for option in named for line in option_entry(f"method.{option.name}", option))
            having.setdefault(entry, []).append(part_name)
        for entry, names in having.items():
            lines += [*paragraph(f"{kind}={', '.join(names)}"), *entry] if entry else []
    if wanted == WEIGHTING.name:
        lines = option_entry(f"method.{wanted}", WEIGHTING)
    if lines:
        return lines
    leaves = [key for key in SCHEMA if key.endswith(f".{name}")]
    if leaves:
        return [line for key in leaves for line in _schema_entry(key)]
    raise UserError(
        f"no help on {show(name)}{nearest(name, _words())} Give a group ({', '.join(GROUPS)}), a section "
        f"({', '.join(SECTIONS)}), a key such as local.lr, method=<name> or {'=<name>, '.join(TABLES)}=<name>"
    )


def _schema_entry(key: str) -> list[str]:
    default = flat_values(RunConfig())[key]
    return option_entry(key, replace(SCHEMA[key], default=default, help=key_docs(RunConfig)[key]))


def _words() -> list[str]:
    options = [f"method.{name}" for kind in TABLES for part in parts_of(kind).values() for name in part.own_options()]
    return [*GROUPS, *SECTIONS, *KINDS, *SCHEMA, *(key.rpartition(".")[2] for key in SCHEMA), *options]
