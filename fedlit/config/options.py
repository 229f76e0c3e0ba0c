"""Which options a run's method has: those of the parts that its files and its arguments pick."""

from collections.abc import Collection, Mapping
from typing import Any

from fedlit.config.keys import METHOD_FIELDS, Hint, show
from fedlit.config.schema import MethodConfig
from fedlit.errors import UserError
from fedlit.options import REQUIRED, flat
from fedlit.recipes import options_taken, own_options

PICKED = ("adapter", "optimizer", "rule", "transforms")
"""Fields of MethodConfig that put a part in the place of a recipe's own."""


def picked_method(content: Mapping[str, Any], origin: str, *layers: Mapping[str, Any]) -> MethodConfig:
    """Return the recipe and the parts that a run picks, without options.

    Args:
        content: of the method's file, which `origin` names.
        layers: what stands above it, the lowest first; a key is dotted or in a section `method`.

    Raises:
        UserError: the method's file names no recipe.
    """
    name = content.get("name")
    if name is None:
        raise UserError(f"{origin} names no recipe; add a line 'name: <recipe>'")
    if not isinstance(name, str):
        raise UserError(f"method.name={show(name)} ({origin}) has the wrong type; expected: text")
    picked: dict[str, Any] = {}
    for field in PICKED:
        for layer in ({"method": content}, *layers):
            inside = layer.get("method")
            nested = inside.get(field) if isinstance(inside, Mapping) else None
            for value in (nested, layer.get(f"method.{field}")):
                picked[field] = value if _is_pick(field, value) else picked.get(field)
    return MethodConfig(name=name, **picked)


def _is_pick(field: str, value: Any) -> bool:
    """Tell whether a value is of the field's type; what is not is told where types are checked."""
    if field == "transforms":
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    return isinstance(value, str)


def option_defaults(method: MethodConfig, content: Mapping[str, Any], asked: Collection[str]) -> dict[str, Any]:
    """Return the defaults of the options that a run's record holds: those of the recipe's own parts, in the order of
    the method's file, and those of other parts that somebody gives.

    asked: dotted keys that are given somewhere.
    """
    taken, own = options_taken(method), own_options(method)
    listed = [name for name in flat(content) if name in own]
    given = {key.split(".")[1] for key in asked if key.startswith("method.")}
    others = [name for name in taken if name.split(".")[0] in given]
    defaults = {name: taken[name].default for name in (*listed, *own, *others)}
    return {name: value for name, value in defaults.items() if value != REQUIRED}


def stored_hints(method: Mapping[str, Any]) -> dict[str, Hint]:
    """Return the dotted options of a stored method and what each accepts; any value where its part is not known here,
    as it came from a module that is not loaded.
    """
    picked = {name: value for name, value in method.items() if name in PICKED and _is_pick(name, value)}
    try:
        taken = options_taken(MethodConfig(name=str(method.get("name", MethodConfig.name)), **picked))
    except UserError:
        taken = {}
    found: dict[str, Hint] = {}
    for name in flat({key: value for key, value in method.items() if key not in METHOD_FIELDS}):
        whole = next((known for known in taken if name == known or name.startswith(f"{known}.")), None)
        found |= {f"method.{whole or name}": taken[whole].hint if whole else Any}
    return found
