"""The layers of one configuration, the lowest first: what is picked, by whom, and what each file and the user says.

    the schema's defaults < group files < the experiment < the user's own files, in their order < the command line

A whole configuration, such as a run's own config.yaml, lies below all: it has every value, so that no group file is
read, save one that is picked above it, which takes the place of that section.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path, PurePath
from types import NoneType
from typing import Any, get_type_hints

from fedlit.config.keys import SCHEMA, Hint, is_section, parts, show, unknown_key
from fedlit.config.older import modern
from fedlit.config.options import PICKED
from fedlit.config.places import GroupFile, is_file_name, read_choice, read_path
from fedlit.config.reading import MAX_DEPTH, parse_yaml, require_text
from fedlit.config.schema import RunConfig
from fedlit.config.tree import SWITCHED, Setting, flatten, settle_layer
from fedlit.errors import UserError

DEFAULT_CHOICES: Mapping[str, str] = {"data": "pydoc", "model": "tiny", "method": "fedit"}

GROUPS = (*DEFAULT_CHOICES, "experiment")

SECTIONS = frozenset(name for name, hint in get_type_hints(RunConfig).items() if is_dataclass(hint))

SWEEP_MARKS = ("axes", "grids", "extra")
"""Keys by which a sweep is known."""


@dataclass(frozen=True, slots=True)
class Given:
    """What stands above all files.

    origin: in messages. values: by key, dotted or nested, group picks among them. is_text: they are words of a command
    line, still to be read.
    """

    origin: str
    values: Mapping[str, Any] = field(default_factory=dict)
    is_text: bool = False

    def picks(self) -> dict[str, str]:
        """Return the choices of groups."""
        return {group: str(self.values[group]) for group in GROUPS if self._is_pick(group)}

    def settings(self, keys: Mapping[str, Hint]) -> Iterator[Setting]:
        """Yield the settings."""
        for key, value in self.values.items():
            if self._is_pick(key):
                continue
            if key not in keys and not is_section(key, keys):
                raise unknown_key(key, self.origin, {**keys, "experiment": str})
            named = f"{key}={show(value)} ({self.origin})"
            parsed = parse_text(value, keys.get(key, Any), named) if self.is_text else value
            yield from flatten(parsed, key, keys, self.origin)

    def method_picks(self) -> dict[str, Any]:
        """Return the parts that are put in the place of a recipe's own."""
        picks: dict[str, Any] = {"method": self.values.get("method")}
        for key in (f"method.{name}" for name in PICKED):
            if key in self.values:
                value = self.values[key]
                named = f"{key}={show(value)} ({self.origin})"
                picks[key] = parse_text(value, SCHEMA[key].hint, named) if self.is_text else value
        return picks

    def _is_pick(self, key: str) -> bool:
        return key in GROUPS and key in self.values and (self.is_text or _picks(self.values[key]))


@dataclass(frozen=True, slots=True)
class Pick:
    """A choice of a group's file. seen_from: the folder of a relative path."""

    group: str
    choice: str
    origin: str
    seen_from: Path | None = None


def _picks(value: Any) -> bool:
    return not isinstance(value, Mapping | None)


def parse_text(text: str, hint: Hint, origin: str) -> Any:
    """Return the value of an argument: YAML, save that a key for text takes the text as it stands.

    For such a key `null` is none, a list is YAML where the key accepts one, and a text in quotes is YAML, so that
    "\\n" in double quotes is a line break.
    """
    accepted = parts(hint)
    is_yaml = text == "null" or text[0] in "'\"" or (text.startswith("[") and list[str] in accepted)
    if str in accepted and {str, NoneType, list[str]}.issuperset(accepted) and not is_yaml:
        return text
    return parse_yaml(text, origin)


def plain(value: Any, named: str, depth: int = 0) -> Any:
    """Return a value of Python's as YAML would have given it: tuples are lists, paths texts.

    Raises UserError for a key that is no text, and for what is nested without end.
    """
    if depth > MAX_DEPTH:
        raise UserError(f"{named} is more than {MAX_DEPTH} lists and mappings deep; give less")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UserError(f"{named} has the key {show(key)}, which is no text; give dotted or nested names")
            require_text(key, f"a key of {named}")
        return {key: plain(part, f"{named}.{key}" if depth else key, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part, named, depth + 1) for part in value]
    if isinstance(value, PurePath):
        value = str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy's, or a tensor of one
        value = value.item()
    if isinstance(value, str):
        require_text(value, named)
    return value


def own_files(words: Iterable[str], origin: str) -> list[GroupFile]:
    """Return the files of the words that are paths of configurations, in their order."""
    return [read_path(word, f"{show(word)} ({origin})") for word in words if is_file_name(word)]


def chain(files: Sequence[GroupFile], given: Given, config_dir: Path) -> tuple[list[GroupFile], list[Pick]]:
    """Return the experiment that the user or the last of the files picks, those that it starts from itself, and the
    files, the lowest first; and these picks in the same order, overridden ones first.

    Raises:
        UserError: no such experiment; files that start from one another; a sweep; a whole configuration that would hide
            what lies below.
    """
    asked = [pick for file in files if (pick := _base(file)) is not None]
    asked += [Pick(group, choice, given.origin) for group, choice in given.picks().items() if group == "experiment"]
    below: list[GroupFile] = []
    pick = asked[-1] if asked else None
    while pick is not None:
        file = read_choice(config_dir, "experiment", pick.choice, pick.origin, pick.seen_from)
        if any(file.origin == other.origin for other in (*below, *files)):
            raise UserError(f"experiment={show(pick.choice)} ({pick.origin}) starts from itself; leave it out")
        below.insert(0, file)
        pick = _base(file)
    found = [*below, *files]
    for number, file in enumerate(found):
        if is_sweep(file) and not file.named:
            raise UserError(f"{file.origin} is a sweep; write fedlit sweep run {file.origin} --local")
        if number and is_whole(file):
            raise UserError(
                f"{file.origin} is the whole configuration of a run, under which nothing of {found[0].origin} counts; "
                "give it first, or leave one of them out"
            )
    return [replace(file, content=modern(file.content)) if is_whole(file) else file for file in found], asked


def is_sweep(file: GroupFile) -> bool:
    """Tell whether a file is a sweep: by a key that only those have."""
    return any(mark in file.content for mark in SWEEP_MARKS)


def _base(file: GroupFile) -> Pick | None:
    """Return the experiment that a user's own file starts from; one that is picked by its name has none."""
    value = file.content.get("experiment")
    return None if file.named or value is None else Pick("experiment", str(value), file.origin, file.folder)


def is_whole(file: GroupFile) -> bool:
    """Tell whether a file is the whole configuration of a run: it has every section, and the recipe's name.

    Raises:
        UserError: it was one, of another version.
    """
    content = file.content
    method = content.get("method")
    if not isinstance(method, Mapping) or "name" not in method:
        return False
    there = {name for name in SECTIONS if isinstance(content.get(name), Mapping)}
    if len(there) < len(SECTIONS) and {"run", "compute", "logging"} <= there:
        lacking = ", ".join(f"{name}: {{}}" for name in sorted(SECTIONS - there))
        raise UserError(f"{file.origin} is the configuration of a run but lacks sections; add {lacking} for defaults")
    return there == SECTIONS


def group_picks(files: Sequence[GroupFile], given: Given) -> list[Pick]:
    """Return every choice of a group's file, the one that counts last: the defaults first, the user's at the end."""
    picks = [Pick(group, choice, "default") for group, choice in DEFAULT_CHOICES.items()]
    for file in files:
        for group in DEFAULT_CHOICES:
            if _picks(value := file.content.get(group)):
                picks.append(Pick(group, str(value), file.origin, file.folder))
    return picks + [
        Pick(group, choice, given.origin) for group, choice in given.picks().items() if group != "experiment"
    ]


def settings_of(file: GroupFile, keys: Mapping[str, Hint]) -> dict[str, Setting]:
    """Return the settings of an experiment or of a user's own file, without its picks."""
    picks = [group for group in DEFAULT_CHOICES if _picks(file.content.get(group))]
    if not file.named:
        picks.append("experiment")
    content = {key: value for key, value in file.content.items() if key not in picks}
    return settled(flatten(content, "", keys, file.origin))


def settled(settings: Iterable[Setting]) -> dict[str, Setting]:
    """Return the settings of one layer by key; what stands there because of another key says so."""
    raw = list(settings)
    given = {setting.key for setting in raw}
    layer = settle_layer(raw)
    return {
        key: setting
        if key in given
        else Setting(key, setting.value, f"because {SWITCHED[key]} is given; {setting.origin}")
        for key, setting in layer.items()
    }


def refuse_method_name(layer: Mapping[str, Setting]) -> None:
    """Refuse a recipe's name without the options of its YAML file."""
    if (setting := layer.get("method.name")) is not None:
        raise UserError(
            f"method.name={show(setting.value)} ({setting.origin}) would keep another recipe's options; "
            f"write method={show(setting.value)}"
        )
