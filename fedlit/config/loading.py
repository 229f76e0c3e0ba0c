"""From the command line and the YAML files to one RunConfig, without torch, so that a mistake is reported at once.

Precedence: the schema's defaults < the chosen group files < the experiment file < the user's own files < the command
line. An experiment file, or a user's own, picks a group's file by its name (`data: medquad`) or by its path, seen from
the file's own folder (`data: my.yaml`), and sets any key, dotted (`local.steps: 10`) or nested; the paths of data and
models in it are seen from the working folder. A run's own config.yaml is such a file too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlit.config.checks import check
from fedlit.config.house import refuse_hidden_template, with_house_rules
from fedlit.config.keys import run_keys, show
from fedlit.config.layers import (
    DEFAULT_CHOICES,
    GROUPS,
    Given,
    Pick,
    chain,
    group_picks,
    is_whole,
    own_files,
    parse_text,
    plain,
    refuse_method_name,
    settings_of,
    settled,
)
from fedlit.config.options import option_defaults, picked_method
from fedlit.config.places import (
    COMMAND_LINE,
    CONFIG_DIR,
    GroupFile,
    is_file_name,
    list_choices,
    read_choice,
    read_path,
)
from fedlit.config.reading import is_there, parse_yaml, require_text
from fedlit.config.record import nested_values
from fedlit.config.schema import RunConfig
from fedlit.config.tree import Setting, assemble, flatten
from fedlit.errors import UserError
from fedlit.lines import cut
from fedlit.outside.loading import find_parts, load_plugins
from fedlit.recipes import all_options, options_taken, own_options

__all__ = [
    "COMMAND_LINE",
    "CONFIG_DIR",
    "DEFAULT_CHOICES",
    "GROUPS",
    "GroupFile",
    "Pick",
    "Resolved",
    "list_choices",
    "load_config",
    "load_config_from",
    "parse_text",
    "read_choice",
    "resolve",
    "resolve_words",
    "split_arguments",
]

KEYWORD = "keyword argument"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration and where it came from.

    settings: every value that was set, the one that counts last. picks: every choice of a group, in the same order,
    those of experiments at the end; of a whole configuration none but those above it.
    """

    config: RunConfig
    settings: tuple[Setting, ...]
    picks: tuple[Pick, ...]


def load_config(arguments: Sequence[str], config_dir: Path = CONFIG_DIR, *, checked: bool = True) -> RunConfig:
    """Return the configuration of a run from its arguments, such as `my.yaml`, `data=medquad` or `local.steps=10`.

    checked: without it values may be out of range and files missing, as where a run is only looked at.

    Raises UserError, one line, for anything that is not known, of the wrong type or out of range.
    """
    return resolve_words(arguments, config_dir, checked=checked).config


def load_config_from(
    source: Mapping[str, Any] | Path | str | RunConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    config_dir: Path = CONFIG_DIR,
    *,
    origin: str = KEYWORD,
) -> RunConfig:
    """Return the configuration of a run from Python's own values: no text is parsed, `"3"` is no number.

    source: what an experiment file holds, dotted or nested, `{"data": "medquad", "local": {"steps": 10}}`; the path of
    such a file, or of a run's config.yaml; a configuration; None for the defaults. Relative paths of configurations are
    seen from the working folder.
    overrides: above it, dotted or nested too. origin: what messages call them.

    Raises UserError as `load_config`.
    """
    files: list[GroupFile] = []
    if isinstance(source, RunConfig):
        source = nested_values(source)
    if isinstance(source, Path | str):
        files.append(read_path(str(source), f"configuration={show(str(source))}"))
    elif source is not None:
        files.append(GroupFile("mapping", plain(_mapping(source, "the configuration"), "the configuration")))
    values = plain(_mapping(overrides or {}, "overrides"), "overrides")
    return resolve(files, Given(origin, values), config_dir).config


def _mapping(value: object, named: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(
            f"{named}={show(value)} is a {type(value).__name__}; give a mapping of keys, a path or a RunConfig"
        )
    return value


def resolve_words(arguments: Sequence[str], config_dir: Path = CONFIG_DIR, *, checked: bool = True) -> Resolved:
    """Return the configuration of a command line, and where every value came from; raises as `load_config`."""
    words = list(arguments)
    for word in words:
        _refuse_name(word, config_dir)
    texts = split_arguments(word for word in words if not is_file_name(word))
    given = Given(COMMAND_LINE, texts, is_text=True)
    return resolve(own_files(words, COMMAND_LINE), given, config_dir, checked=checked)


def _refuse_name(word: str, config_dir: Path) -> None:
    """Refuse the name of an experiment, or of a run's folder, where a key=value or a file is expected."""
    if "=" in word or word.startswith("-") or is_file_name(word):
        return
    stored = f"{word}/config.yaml"
    meant = f"experiment={word}" if word in list_choices(config_dir, "experiment") else stored
    if meant != stored or is_there(stored, Path.is_file):
        raise UserError(f"{cut(word)!r} is no key=value and no YAML file; write {meant}")


def resolve(own: Sequence[GroupFile], given: Given, config_dir: Path, *, checked: bool = True) -> Resolved:
    """Return the configuration of a user's own files, in their order, and of what is given above them."""
    files, experiments = chain(own, given, config_dir)
    picks = group_picks(files, given)
    whole = files[0] if files and is_whole(files[0]) else None
    if whole is not None:
        picks = [pick for pick in picks if pick.origin != "default"]
    last = {pick.group: pick for pick in picks}
    load_plugins(plugins_of(given, files))
    chosen = {
        group: read_choice(config_dir, group, pick.choice, pick.origin, pick.seen_from) for group, pick in last.items()
    }
    find_parts(
        *({group: file.content} for group, file in chosen.items()), *(file.content for file in files), given.values
    )
    method_file = chosen["method"] if "method" in chosen else _stored_method(whole)
    above = [file.content for file in files if file is not whole]
    method = picked_method(method_file.content, method_file.origin, *above, given.method_picks())
    keys, kept_keys = run_keys(options_taken(method)), run_keys(own_options(method))
    layers = [settled(flatten(file.content, group, keys, file.origin)) for group, file in chosen.items()]
    method_from = last["method"].origin if "method" in last else None
    is_below = method_from is not None  # of the file that picks the method, or of the user who does
    for file in files:
        if file is whole:
            kept = {name: part for name, part in file.content.items() if name not in chosen}
            layers.insert(0, settled(flatten(kept, "", keys, file.origin)))
            continue
        is_below = is_below and method_from not in ("default", file.origin)
        layer = settings_of(file, {**run_keys(all_options()), **keys} if is_below else keys)
        refuse_method_name(layer)
        # The options of the method that a file had in mind are no mistake of who picks another above.
        layers.append({key: setting for key, setting in layer.items() if key in kept_keys} if is_below else layer)
    layers.append(settled(given.settings(keys)))
    refuse_method_name(layers[-1])
    refuse_hidden_template(layers, starts_whole=whole is not None)
    settings = with_house_rules([setting for layer in layers for setting in layer.values()], last)
    defaults = option_defaults(method, method_file.content, {setting.key for setting in settings})
    config = assemble(settings, keys, defaults)
    if checked:
        check(config, {setting.key: setting.origin for setting in settings})
    return Resolved(config, tuple(settings), (*picks, *experiments))


def _stored_method(whole: GroupFile | None) -> GroupFile:
    assert whole is not None, "without a whole configuration every group has a file"
    return GroupFile(whole.origin, whole.content["method"])


def plugins_of(given: Given, files: Sequence[GroupFile]) -> list[str]:
    """Return the modules that register parts: they are imported before the keys are known."""
    value: Any = []
    origin = ""
    for file in (file for file in files if "plugins" in file.content):
        value, origin = file.content["plugins"], file.origin
    if "plugins" in given.values:
        value, origin = given.values["plugins"], given.origin
        value = parse_yaml(value, f"plugins ({origin})") if given.is_text else value
    return module_names(value, origin)


def module_names(value: Any, origin: str) -> list[str]:
    """Return the value of `plugins`; raises UserError unless it is a list of texts."""
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
