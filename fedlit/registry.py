"""Parts from outside the package: a module registers them when it is imported, a configuration names the module.

    # my_parts.py, anywhere on the import path or beside the command
    from fedlit.plugins import AggregationRule, option, register

    @register("rule", "trimmed_mean")
    @dataclass(frozen=True, kw_only=True)
    class TrimmedMean(AggregationRule): ...

    fedlit run plugins=[my_parts] method.rule=trimmed_mean method.trim=2

`fedlit/plugins.py` says what each kind of part must offer. Torch is not imported here: the configuration reads the
options of registered parts before it is needed.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload

from fedlit.errors import UserError
from fedlit.options import FILLED, plain
from fedlit.outside.kinds import KINDS
from fedlit.outside.shape import annotations, option_fields, require_shape

Factory = Callable[..., Any]
F = TypeVar("F")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Names of a method's parts.

    pooled: one client trains on everybody's rows, taking as many steps as all would. defaults: of the parts' options,
    where they differ from the parts' own; of a recipe from outside alone, since one of the package has its YAML file.
    help: one line for `fedlit help method=<name>`, likewise.
    """

    adapter: str
    optimizer: str = "adamw"
    rule: str = "fedavg"
    transforms: tuple[str, ...] = ()
    pooled: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    help: str = ""

    @property
    def weighs(self) -> bool:
        """Whether clients have weights: there are several, and something travels."""
        return not self.pooled and self.rule != "none"

    def parts(self) -> list[tuple[str, str]]:
        """Return the kind and the name of every part."""
        transforms = [("transform", name) for name in self.transforms]
        return [("adapter", self.adapter), ("optimizer", self.optimizer), ("rule", self.rule), *transforms]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a part was registered.

    modules: those whose import registered it, the innermost first; none if it was not registered by an import.
    place: file and line.
    """

    modules: tuple[str, ...]
    place: str


_registered: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_origins: dict[tuple[str, str], Origin] = {}

_NAME = re.compile(r"[^\W\d][\w.-]{0,59}")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})
"""What YAML takes for something else than text."""


@overload
def register(kind: str, name: str) -> Callable[[F], F]: ...
@overload
def register(kind: str, name: str, factory: F) -> F: ...
def register(kind: str, name: str, factory: Any = None) -> Any:
    """Make a part known under a name: `register("rule", "mine", Mine)`, or `@register("rule", "mine")` over the class.

    Args:
        kind: of KINDS.
        name: what the configuration calls it.
        factory: a dataclass; its fields are the part's options. Of the kind `recipe` a `Recipe`, of the kind `task` a
            `TaskSpec`.

    Raises:
        UserError: an unknown kind, a name that another part has or that a configuration cannot hold, a part that lacks
            what its kind must offer, or an option of a type that a configuration cannot hold.
    """
    place = _origin()
    if factory is None:
        return lambda decorated: _register(kind, name, decorated, place)
    return _register(kind, name, factory, place)


def _register(kind: str, name: str, factory: F, place: Origin) -> F:
    if kind not in KINDS:
        raise UserError(f"register: {kind!r} is no kind of part ({place.place}){_near(kind, KINDS)} {_valid(KINDS)}")
    told = f"register: {kind} {name} ({place.place})"
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _WORDS:
        raise UserError(
            f"register: {name!r} ({place.place}) cannot name a {kind} in a configuration; begin with a letter and go "
            "on with letters, digits, '_', '-' and '.', at most 60"
        )
    if name in KINDS[kind].own:
        raise UserError(f"{told} has the name of one of the package's own; choose another name")
    before = _registered[kind].get(name)
    if before is not None and _identity(before) != _identity(factory):
        raise UserError(f"{told} is registered already by {_origins[kind, name].place}; choose another name")
    require_shape(told, kind, factory)
    _require_free_names(told, kind, factory)
    _registered[kind][name] = factory
    _origins[kind, name] = place
    return factory


def _require_free_names(told: str, kind: str, factory: Any) -> None:
    """Refuse an option of a method's part under a name that is filled from elsewhere: it would be ignored."""
    if KINDS[kind].options != "method" or not dataclasses.is_dataclass(factory):
        return
    for entry in dataclasses.fields(factory):
        if entry.name in FILLED and "help" in entry.metadata:
            place = "seed" if entry.name == "seed" else f"local.{entry.name}"
            raise UserError(
                f"{told}: the field {entry.name} is filled from {place} and cannot be an option; give the option "
                f"another name, or leave out option() to have {place}"
            )


def _identity(factory: Any) -> tuple[Any, ...]:
    """Return what tells parts apart: a module that is imported again makes its classes anew."""
    return (factory.__module__, factory.__qualname__) if isinstance(factory, type) else (repr(factory),)


def registered(kind: str) -> Mapping[str, Any]:
    """Return the parts of a kind that came from outside, by name."""
    return MappingProxyType(_registered[kind])


def origin(kind: str, name: str) -> Origin:
    """Return where a part from outside was registered."""
    return _origins.get((kind, name), Origin((), "?"))


def shown_origin(kind: str, name: str) -> str:
    """Return where a part from outside was registered, as it stands in a message beside configs/method/fedit.yaml."""
    return origin(kind, name).place


def require_known(kind: str, name: str, where: str) -> None:
    """Raise a UserError unless a part is the package's own or registered; `where` begins the line."""
    known = [*KINDS[kind].own, *_registered[kind]]
    if name not in known:
        raise UserError(f"{where} names the {kind} {name}, which is not known{_near(name, known)} {_valid(known)}")


def build_part(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """Return a part from outside with those of the options that it takes."""
    factory, hints = _registered[kind][name], annotations(_registered[kind][name])
    given = {entry.name: options[entry.name] for entry in option_fields(factory) if entry.name in options}
    for option, value in given.items():
        section: Any = hints.get(option)
        if dataclasses.is_dataclass(section) and isinstance(value, Mapping):
            given[option] = section(**value)  # type: ignore[operator]  # a class: it stands in an annotation
    return factory(**given)


def snapshot() -> Callable[[], None]:
    """Return what takes back every registration from now on: of a module whose import fails half-way, of a test."""
    parts, origins = {kind: dict(names) for kind, names in _registered.items()}, dict(_origins)

    def restore() -> None:
        for kind, names in parts.items():
            _registered[kind].clear()
            _registered[kind].update(names)
        _origins.clear()
        _origins.update(origins)

    return restore


# --- options


def recipe_options(name: str) -> dict[str, Any]:
    """Return the `method.` options that a recipe from outside gives values of its own.

    Raises:
        UserError: it names a part that is not known.
    """
    recipe: Recipe = _registered["recipe"][name]
    for kind, part in recipe.parts():
        require_known(kind, part, f"the recipe {name} ({origin('recipe', name).place})")
    defaults: dict[str, Any] = plain(recipe.defaults)
    return defaults


def option_names(factory: Factory) -> tuple[str, ...]:
    """Return the names of a registered part's options."""
    return tuple(entry.name for entry in option_fields(factory))


# --- lines


def _origin() -> Origin:
    """Return who calls `register`, and the modules that are being imported."""
    frame: Any = sys._getframe(2)
    while frame.f_globals.get("__name__") == "fedlit.tasks.registry" and frame.f_back is not None:
        frame = frame.f_back  # the caller of `register_task`
    place = f"{shown_path(frame.f_code.co_filename)}:{frame.f_lineno}"
    modules = []
    while frame is not None:
        spec = frame.f_globals.get("__spec__")  # a script has none
        if frame.f_code.co_name == "<module>" and spec is not None and frame.f_globals["__name__"] != "__main__":
            modules.append(frame.f_globals["__name__"])
        frame = frame.f_back
    return Origin(tuple(modules), place)


def shown_path(path: str) -> str:
    """Return a path as a person finds it: from the working folder where it lies there."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path


def _near(name: object, names: Iterable[str]) -> str:
    near = get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "."


def _valid(names: Iterable[str]) -> str:
    return f"Valid: {', '.join(names)}"
