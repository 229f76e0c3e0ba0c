"""What a caller in Python gives for a configuration, as one mapping of dotted keys to plain values."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path, PurePath
from types import NoneType
from typing import Any

from fedlit.config import RunConfig
from fedlit.config.keys import SCHEMA, show
from fedlit.config.loading import GROUPS, parse_text, split_arguments
from fedlit.config.reading import parse_yaml, read_file
from fedlit.config.record import nested_values
from fedlit.errors import UserError
from fedlit.options import Option

_ANY = Option("", Any)
"""An option of a method, whose type is known once its parts are."""

_PLAIN = (bool, int, float, str, list, tuple, Mapping, PurePath, NoneType)

Config = RunConfig | Mapping[str, Any] | Sequence[str] | str | PathLike[str] | None
"""What `fedlit.run` and `fedlit.load_config` take."""

SECTIONS = frozenset(key.rpartition(".")[0] for key in (*SCHEMA, "method.name")) - {""}


def values_of(config: Config, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every key that is given, the overrides last.

    Args:
        config: nothing, a mapping, a list of `key=value`, the path of a YAML file or of a run's folder, or a whole
            configuration.
        overrides: names of sections or of keys at the top, a section as a nested mapping.

    Raises:
        UserError: a file that is no configuration, or a value that is nothing for one.
    """
    if config is None:
        values: dict[str, Any] = {}
    elif isinstance(config, RunConfig):
        values = _of_mapping(nested_values(config))
    elif isinstance(config, Mapping):
        values = _of_mapping(config)
    elif isinstance(config, str | PathLike):
        values = _of_file(Path(fspath(config)).expanduser())
    elif isinstance(config, Sequence) and all(isinstance(word, str) for word in config):
        values = {key: _parsed(key, text) for key, text in split_arguments(config).items()}
    else:
        raise UserError(
            f"a configuration is no {type(config).__name__}; give a mapping, a path, a list of 'key=value', or nothing"
        )
    return values | _of_mapping(overrides)


def is_whole(config: Config) -> bool:
    """Tell whether every value is given, whoever chose it: a configuration that was loaded, or a run's own."""
    return isinstance(config, RunConfig) or (isinstance(config, str | PathLike) and Path(fspath(config)).is_dir())


def _parsed(key: str, text: str) -> Any:
    """Return the value of a word of a command line; the choice of a group is text."""
    if key in GROUPS:
        return text
    return parse_text(text, SCHEMA.get(key, _ANY).hint, f"{key}={show(text)} (from Python)")


def _of_mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(_flat(values, ""))
    if "method.name" in flat and "method" not in flat:  # a whole configuration names its recipe, whose options follow
        flat["method"] = flat.pop("method.name")
    return flat


def _of_file(path: Path) -> dict[str, Any]:
    """Return what a YAML file sets, or a run's folder; the latter goes on where it lies."""
    place: dict[str, Any] = {}
    if path.is_dir():
        place = _of_mapping({"run.dir": str(path.absolute().parent), "run.name": path.absolute().name})
        path = path / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} is no file; give a YAML file, a run's folder, a mapping, or a list of 'key=value'")
    content = parse_yaml(read_file(path, str(path)), str(path))
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no mapping; write one 'key: value' on each line")
    return _of_mapping(content) | place


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values; a mapping that is no section is a value."""
    for name, value in values.items():
        if not isinstance(name, str):
            raise UserError(f"{prefix}{name!r} is no name of an option; give texts, such as 'local.lr'")
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key in SECTIONS:
            yield from _flat(value, f"{key}.")
        elif isinstance(value, _PLAIN) or hasattr(value, "item"):  # a number of NumPy's has one
            yield key, value
        else:
            what = type(value).__name__
            raise UserError(f"{key} is given a {what}; give a text, a number, true or false, None, or a list")
