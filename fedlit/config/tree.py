"""Settings put one after the other into one typed tree by OmegaConf, each with its origin for the error messages."""

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, make_dataclass, replace
from functools import partial
from typing import Any, cast, get_args

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedlit.config.keys import (
    INT_OR_LIST,
    METHOD_FIELDS,
    OPTION_HINTS,
    Hint,
    as_argument,
    describe,
    is_list,
    is_mapping,
    is_section,
    level_names,
    option_hint,
    run_keys,
    show,
    unknown_key,
)
from fedlit.config.schema import MethodConfig, RunConfig
from fedlit.errors import UserError

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


def assemble(settings: Iterable[Setting], options: Mapping[str, Any]) -> RunConfig:
    """Return the tree with the settings applied in order, over the schema's defaults and these options of the recipe.

    Raises UserError for a value of the wrong type.
    """
    keys = run_keys(options)
    tree = OmegaConf.structured(RunConfig(method=_method_class(MethodConfig, options)()))
    for setting in settings:
        _assign(tree, setting, keys[setting.key])
    config = cast(RunConfig, OmegaConf.to_object(tree))
    method = asdict(config.method)
    common = {name: method[name] for name in METHOD_FIELDS}
    return replace(config, method=MethodConfig(**common, options={name: method[name] for name in options}))


def _method_class(base: type, options: Mapping[str, Any]) -> type:
    """Return a dataclass below `base` with one typed field for every option, nested mappings as dataclasses."""
    members: list[tuple[str, Any, Any]] = []
    for name, default in options.items():
        if isinstance(default, Mapping) and default:
            nested = _method_class(object, default)
            members.append((name, nested, field(default_factory=nested)))
        else:
            hint = Any if isinstance(default, str) or name in OPTION_HINTS else option_hint(default)
            members.append((name, hint, field(default_factory=partial(deepcopy, default))))
    return make_dataclass(f"{base.__name__}Options", members, bases=(base,))


def _assign(tree: Any, setting: Setting, hint: Hint) -> None:
    """Put one value of the right type into the tree."""
    _require_unexpanded(setting)
    value = setting.value
    try:
        if not accepts(value, hint):
            raise ValueError
        if isinstance(value, str):
            value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # OmegaConf would look for the value of a key
        OmegaConf.update(tree, setting.key, value, merge=False)
    except (ValueError, OverflowError, OmegaConfBaseException):
        unquoted = str in _parts(hint) and isinstance(value, (bool, int, float))
        raise UserError(
            f"{setting.key}={show(setting.value)} ({setting.origin}) has the wrong type; "
            f"expected: {describe(hint)}{', in quotes' if unquoted else ''}"
        ) from None


def _require_unexpanded(setting: Setting) -> None:
    """Refuse `${`, which other programs expand, save in a template, where it is a dollar before a column."""
    if setting.key not in TEMPLATES and "${" in as_argument(setting.value):
        raise UserError(
            f"{setting.key}={show(setting.value)} ({setting.origin}) holds '${{', which is not expanded here; "
            "write the value itself"
        )


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


def _parts(hint: Hint) -> tuple[Hint, ...]:
    """Return the members of a union, or the annotation itself."""
    return (hint,) if is_list(hint) else get_args(hint) or (hint,)
