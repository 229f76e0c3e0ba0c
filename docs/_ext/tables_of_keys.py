"""Keys of the configuration and options of parts, from the dataclasses that declare them."""

import re
from collections import defaultdict
from dataclasses import replace

from markdown import code, prose, table

from fedlit.config.help import SECTIONS, key_docs, kind_of, recipe_options
from fedlit.config.keys import SCHEMA, show
from fedlit.config.loading import CONFIG_DIR
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig
from fedlit.options import REQUIRED, Option
from fedlit.outside.kinds import KINDS
from fedlit.recipes import TABLES, WEIGHTING, parts_of

HEADING = ("key", "default", "meaning")


def anchor(key: str) -> str:
    """Return the anchor of a key: `local.lr` stands at `#local-lr`."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")


def section(name: str) -> str:
    """Return the table of a section; `run` is the section `run.`, `top` what stands at the top of the tree."""
    prefix = "" if name == "top" else name
    docs, defaults = key_docs(RunConfig), flat_values(RunConfig())
    rows = [
        _row(key, replace(option, default=defaults[key], help=docs[key]))
        for key, option in SCHEMA.items()
        if key.rpartition(".")[0] == prefix
    ]
    about = f"{prose(SECTIONS[prefix].__doc__ or '')}\n\n" if prefix else ""
    return about + table(HEADING, rows, "keys")


def _row(key: str, option: Option, *, anchored: bool = True) -> tuple[str, str, str]:
    name = f"[{code(key)}]{{#{anchor(key)}}}" if anchored else code(key)
    default = "to be given" if option.default == REQUIRED else code(show(option.default))
    return name, default, f"{prose(option.help)}<br>*{prose(_kind(option))}*"


def _kind(option: Option) -> str:
    """Return type, range and valid values of an option in words."""
    kind = kind_of(option)
    return f"{kind}: {', '.join(f'`{name}`' for name in option.valid)}" if option.valid else kind


def part_options(kind: str) -> str:
    """Return the options of all parts of a kind: equal ones stand once, with the parts that have them."""
    rows: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, part in parts_of(kind).items():
        for key, option in part.own_options().items():
            rows[_row(f"method.{key}", option, anchored=False)].append(name)
    bare = [name for name, part in parts_of(kind).items() if not part.own_options()]
    told = f"\n\nWithout options: {', '.join(map(code, bare))}." if bare else ""
    if not rows:
        return told.strip()
    shown = [(key, ", ".join(map(code, names)), default, text) for (key, default, text), names in rows.items()]
    return table(("key", f"{kind}s that take it", "default", "meaning"), shown, "options") + told


def method(name: str) -> str:
    """Return the options of a method's own parts with the defaults of its file, as `fedlit help method=NAME` does."""
    options = recipe_options(CONFIG_DIR, name)
    rows = [_row(f"method.{key}", option, anchored=False) for key, option in options.items()]
    return table(HEADING, rows, "keys")


def kinds() -> str:
    """Return what chooses each kind of part, its names and where its options stand."""
    rows = []
    for name, kind in KINDS.items():
        chosen = ", ".join(code(f"{key.removesuffix('.name') if name == 'recipe' else key}=") for key in kind.keys)
        place = "keys of `method.`" if kind.options == "method" else code(kind.options) if kind.options else ""
        place = place if name in TABLES or name == "recipe" else f"{place} (parts from outside)" if place else ""
        rows.append((name, chosen, ", ".join(map(code, kind.own)), place))
    weighting = prose(f"{WEIGHTING.help} (default `{WEIGHTING.default}`)")
    return table(("kind", "chosen by", "names", "options"), rows, "kinds") + f"\n\n`method.weighting=`: {weighting}."
