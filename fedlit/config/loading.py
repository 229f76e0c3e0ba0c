"""From the command line and the YAML files to one RunConfig, without torch, so that a mistake is reported at once.

Precedence: the schema's defaults < the chosen group files < the experiment file < the command line. An experiment
file picks a group's file by its name (`data: medquad`) and sets any key, dotted (`local.steps: 10`) or nested.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any

from fedlit.config.checks import check
from fedlit.config.keys import SCHEMA, Hint, is_section, nearest, parts, run_keys, show, unknown_key
from fedlit.config.options import PICKED, option_defaults, picked_method
from fedlit.config.reading import parse_yaml, read_file, require_text
from fedlit.config.schema import RunConfig
from fedlit.config.tree import Setting, assemble, flatten, settle_layer
from fedlit.errors import UserError
from fedlit.lines import cut
from fedlit.outside.loading import find_parts, find_recipe, load_plugins
from fedlit.recipes import all_options, options_taken, own_options
from fedlit.registry import recipe_options, shown_origin
from fedlit.shipped import shipped

CONFIG_DIR = shipped("configs")

DEFAULT_CHOICES: Mapping[str, str] = {"data": "pydoc", "model": "tiny", "method": "fedit"}

GROUPS = (*DEFAULT_CHOICES, "experiment")

COMMAND_LINE = "command line"

PICKED_KEYS = frozenset(f"method.{field}" for field in PICKED)

MISSING = "???"
"""What a YAML file writes where only the user knows the value."""


@dataclass(frozen=True, slots=True)
class GroupFile:
    """One parsed YAML file; `origin` names it in messages as configs/<group>/<choice>.yaml."""

    origin: str
    content: Mapping[str, Any]


def load_config(arguments: Sequence[str], config_dir: Path = CONFIG_DIR) -> RunConfig:
    """Return the configuration of a run from its arguments, such as `data=medquad` or `local.steps=10`.

    Raises UserError, one line, for anything that is not known, of the wrong type or out of range.
    """
    texts = split_arguments(arguments)
    picks = {group: texts.pop(group) for group in GROUPS if group in texts}
    experiment = GroupFile("", {})
    if "experiment" in picks:
        experiment = read_choice(config_dir, "experiment", picks.pop("experiment"))
    experiment_picks = {
        group: str(experiment.content[group])
        for group in DEFAULT_CHOICES
        if not isinstance(experiment.content.get(group), Mapping | None)
    }
    load_plugins(_plugins(texts, experiment))
    origins = dict.fromkeys(experiment_picks, experiment.origin) | dict.fromkeys(picks, COMMAND_LINE)
    files = {
        group: read_choice(config_dir, group, choice, origins.get(group, "default"))
        for group, choice in {**DEFAULT_CHOICES, **experiment_picks, **picks}.items()
    }
    find_parts({group: file.content for group, file in files.items()}, experiment.content, texts)
    method_file = files["method"]
    picked_by_user = {key: _parse_argument(key, texts[key], SCHEMA[key].hint) for key in PICKED_KEYS & texts.keys()}
    method = picked_method(method_file.content, method_file.origin, experiment.content, picked_by_user)
    keys = run_keys(options_taken(method))
    overrides = {key: value for key, value in experiment.content.items() if key not in experiment_picks}
    if "method" in picks:  # the options of the experiment's own method are no mistake of who picks another
        known, kept = {**run_keys(all_options()), **keys}, run_keys(own_options(method)).keys()
    else:
        known, kept = keys, keys.keys()
    experiment_layer = _without_method_name(settle_layer(flatten(overrides, "", known, experiment.origin)))
    experiment_layer = {key: setting for key, setting in experiment_layer.items() if key in kept}
    layers = [
        *(settle_layer(flatten(file.content, group, keys, file.origin)) for group, file in files.items()),
        experiment_layer,
        _without_method_name(settle_layer(_command_line_settings(texts, keys))),
    ]
    settings = [setting for layer in layers for setting in layer.values()]
    last = {setting.key: setting for setting in settings}
    if "partition.name" not in last and "data.label" in last and last["data.label"].value is None:
        settings.append(Setting("partition.name", "iid", "default without data.label"))
    defaults = option_defaults(method, method_file.content, last.keys())
    config = assemble(_require_missing(settings), keys, defaults)
    check(config, {setting.key: setting.origin for setting in settings})
    return config


def _plugins(texts: Mapping[str, str], experiment: GroupFile) -> list[str]:
    """Return the modules that register parts: they are imported before the keys are known."""
    value = experiment.content.get("plugins", [])
    origin = experiment.origin
    if "plugins" in texts:
        value, origin = parse_yaml(texts["plugins"], f"plugins ({COMMAND_LINE})"), COMMAND_LINE
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"plugins={show(value)} ({origin}) has the wrong type; expected: list of text, as [my_parts]")
    return value


def split_arguments(arguments: Iterable[str]) -> dict[str, str]:
    """Return the text of every key; raises UserError for what is no `key=value` and for a key with two values."""
    texts: dict[str, str] = {}
    for argument in arguments:
        require_text(argument, f"{show(argument)} ({COMMAND_LINE})")
        key, equals, text = argument.partition("=")
        if key.startswith("-"):
            raise UserError(
                f"{cut(argument)!r} starts with a dash; options of the launcher stand before the script, "
                "those of the run are key=value"
            )
        if not equals or not key:
            raise UserError(f"{cut(argument)!r} is no key=value; write {show(key) if key else '<key>'}=<value>")
        if not text.strip():
            raise UserError(
                f"{cut(key)!r} is given an empty value ({COMMAND_LINE}); write {show(key)}=null for none, "
                "or leave it out"
            )
        if texts.setdefault(key, text) != text:
            raise UserError(
                f"{show(key)} is given twice ({COMMAND_LINE}): {show(texts[key])} and {show(text)}; leave one out"
            )
    return texts


def list_choices(config_dir: Path, group: str) -> dict[str, Path]:
    """Return the YAML files of a group by the name that picks them, `glue/cola` for one in a folder."""
    if not config_dir.is_dir():
        raise UserError(f"there is no folder {config_dir}; run from a clone of the repository, which holds configs/")
    folder = config_dir / group
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def read_choice(config_dir: Path, group: str, choice: str, chosen_in: str = COMMAND_LINE) -> GroupFile:
    """Read the file of a choice made in `chosen_in`; raises UserError if there is none or it is not a YAML mapping."""
    choices = list_choices(config_dir, group)
    if choice not in choices and group == "method" and find_recipe(choice):
        return GroupFile(shown_origin("recipe", choice), {"name": choice, **recipe_options(choice)})
    if choice not in choices:
        raise UserError(
            f"unknown choice {group}={show(choice)} ({chosen_in}){nearest(choice, choices)} "
            f"Valid choices: {', '.join(choices) or 'none'}"
        )
    path = choices[choice]
    origin = f"{config_dir.name}/{group}/{choice}.yaml"
    content = _parse_file(read_file(path, origin), origin)
    if content is not None and not isinstance(content, Mapping):
        raise UserError(f"{origin} holds no mapping; write one 'key: value' on each line")
    return GroupFile(origin, content or {})


@lru_cache(maxsize=256)
def _parse_file(text: str, origin: str) -> Any:
    """Return `parse_yaml` of a file, once for each text: every cell of a sweep reads the same files.

    Nobody may change what it returns.
    """
    return parse_yaml(text, origin)


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


def _parse_argument(key: str, text: str, hint: Hint) -> Any:
    return parse_text(text, hint, f"{key}={show(text)} ({COMMAND_LINE})")


def _command_line_settings(texts: Mapping[str, str], keys: Mapping[str, Hint]) -> Iterator[Setting]:
    """Yield the settings of the command line."""
    for key, text in texts.items():
        if key not in keys and not is_section(key, keys):
            raise unknown_key(key, COMMAND_LINE, {**keys, "experiment": str})
        value = _parse_argument(key, text, keys.get(key, Any))
        yield from flatten(value, key, keys, COMMAND_LINE)


def _without_method_name(layer: dict[str, Setting]) -> dict[str, Setting]:
    """Refuse a recipe's name without the options of its YAML file."""
    if (setting := layer.get("method.name")) is not None:
        raise UserError(
            f"method.name={setting.value} ({setting.origin}) would keep another recipe's options; "
            f"write method={setting.value}"
        )
    return layer


def _require_missing(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings that have a value; refuse a key whose last one has none.

    A backbone without a name takes the last part of its path.
    """
    last = {setting.key: setting for setting in settings}
    given = [setting for setting in settings if setting.value != MISSING]
    for key, setting in last.items():
        path = last.get("model.path")
        if setting.value != MISSING:
            continue
        if key == "model.name" and path is not None and path.value != MISSING:
            given.append(Setting(key, Path(str(path.value)).name, path.origin))
        elif key != "model.name":
            raise UserError(f"{key} is not given and {setting.origin} leaves it to you; add {key}=<value>")
    return given
