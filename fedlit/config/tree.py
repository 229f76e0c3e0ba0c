"""Settings put one after the other into one typed tree by OmegaConf, each with its origin for the error messages."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedlit.config.keys import (
    INT_OR_LIST,
    SCHEMA,
    Hint,
    as_argument,
    describe,
    is_list,
    is_mapping,
    is_section,
    level_names,
    parts,
    show,
    unknown_key,
)
from fedlit.config.schema import RunConfig
from fedlit.errors import UserError
from fedlit.options import nested

TEMPLATES = frozenset({"data.template", "data.test_template"})
"""Keys whose text is a format string: in `${question}$` the column stands between two dollar signs."""

SWITCHED = {"local.steps": "local.epochs", "local.epochs": "local.steps"}
"""Two ways to say how long a client trains: giving one in a file or on the command line puts the other to null."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one dotted key; `origin` is the file it stands in or the command line."""

    key: str
    value: Any
    origin: str


def flatten(value: Any, key: str, keys: Mapping[str, Hint], origin: str) -> Iterator[Setting]:
    """Yield one setting for every known key at or below `key` ('' is the root); a section without content has none.

    Raises UserError for an unknown key and for a section that is not a mapping.
    """
    if key in keys:
        yield Setting(key, value, origin)
    elif not is_section(key, keys):
        raise unknown_key(key, origin, keys)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from flatten(part, f"{key}.{name}" if key else str(name), keys, origin)
    elif value is not None:
        names = ", ".join(level_names(key, keys))
        what = f"{key}={show(value)} ({origin})" if key else f"{origin}: {show(value)}"
        raise UserError(f"{what} is one value, but a mapping is expected; its keys are: {names}")


def settle_layer(settings: Iterable[Setting]) -> dict[str, Setting]:
    """Return the settings of one file, or of the command line, by key; their order does not matter.

    Raises UserError for a key with two values.
    """
    layer: dict[str, Setting] = {}
    for setting in settings:
        earlier = layer.setdefault(setting.key, setting)
        if earlier is not setting and earlier.value != setting.value:
            raise UserError(
                f"{setting.key} is given twice ({setting.origin}): {show(earlier.value)} and {show(setting.value)}; "
                "leave one out"
            )
    for given, other in SWITCHED.items():
        if given in layer and layer[given].value is not None and other not in layer:
            layer[other] = Setting(other, None, layer[given].origin)
    return layer


def assemble(settings: Iterable[Setting], keys: Mapping[str, Hint], defaults: Mapping[str, Any]) -> RunConfig:
    """Return the tree with the settings applied in order, over the schema's defaults and those of the method's options.

    keys: every dotted key of this run and what it accepts. defaults: of options, by their names without `method.`.

    Raises UserError for a value of the wrong type.
    """
    tree = OmegaConf.structured(RunConfig)
    options = dict(defaults)
    for setting in settings:
        _require_unexpanded(setting)
        try:
            if setting.key in SCHEMA:
                _assign(tree, setting.key, typed(setting.value, keys[setting.key]))
            else:
                options[setting.key.removeprefix("method.")] = typed(setting.value, keys[setting.key])
        except (ValueError, OverflowError, OmegaConfBaseException):
            raise _wrong_type(setting, keys[setting.key]) from None
    config = cast(RunConfig, OmegaConf.to_object(tree))
    return replace(config, method=replace(config.method, options=nested(options)))


def _assign(tree: Any, key: str, value: Any) -> None:
    """Put one value of the right type into the tree."""
    if isinstance(value, str):
        value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # OmegaConf would look for the value of a key
    OmegaConf.update(tree, key, value, merge=False)


def _wrong_type(setting: Setting, hint: Hint) -> UserError:
    unquoted = str in parts(hint) and isinstance(setting.value, (bool, int, float))
    return UserError(
        f"{setting.key}={show(setting.value)} ({setting.origin}) has the wrong type; "
        f"expected: {describe(hint)}{', in quotes' if unquoted else ''}"
    )


def _require_unexpanded(setting: Setting) -> None:
    """Refuse `${`, which other programs expand, save in a template, where it is a dollar before a column."""
    if setting.key not in TEMPLATES and "${" in as_argument(setting.value):
        raise UserError(
            f"{setting.key}={show(setting.value)} ({setting.origin}) holds '${{', which is not expanded here; "
            "write the value itself"
        )


def typed(value: Any, hint: Hint) -> Any:
    """Return a value as a key holds it: an integer is also a number; nothing else becomes what it is not.

    Raises ValueError for a value of another type, OverflowError for an integer that no number can hold.
    """
    if not accepts(value, hint):
        raise ValueError
    if isinstance(value, list):
        entry = next((get_args(part)[0] for part in parts(hint) if is_list(part)), Any)
        return [typed(part, entry) for part in value]
    is_number = type(value) is int and float in parts(hint) and int not in parts(hint)
    return float(value) if is_number else value


def accepts(value: Any, hint: Hint) -> bool:
    """Tell whether a value is of a key's type as it stands: no text is taken for a number, no number for a truth value
    or a text; only an integer is also a number.
    """
    if is_list(hint):
        return isinstance(value, list) and all(accepts(entry, get_args(hint)[0]) for entry in value)
    if get_args(hint) and not is_mapping(hint):
        return any(accepts(value, part) for part in get_args(hint)) and (hint != INT_OR_LIST or value != [])
    if hint is float:
        return type(value) in (int, float)
    kind = dict if is_mapping(hint) else hint
    return hint is Any or (isinstance(value, kind) and isinstance(value, bool) == (hint is bool))
