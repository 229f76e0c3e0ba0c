"""A configuration as Python has it, a mapping with dotted or nested keys, as the words of a command line."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path, PurePath
from typing import Any

from fedlit.config import RunConfig
from fedlit.config.keys import SCHEMA, as_argument
from fedlit.config.loading import split_arguments
from fedlit.config.reading import parse_yaml, read_file
from fedlit.config.record import nested_values
from fedlit.errors import UserError

Config = RunConfig | Mapping[str, Any] | Sequence[str] | str | PathLike[str] | None
"""What `fedlit.run` and `fedlit.load_config` take."""

SECTIONS = frozenset(key.rpartition(".")[0] for key in (*SCHEMA, "method.name")) - {""}


def texts_of(config: Config, overrides: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of every key that is given, the overrides last.

    Args:
        config: nothing, a mapping, a list of `key=value`, the path of a YAML file or of a run's folder, or a whole
            configuration.
        overrides: names of sections or of keys at the top, a section as a nested mapping.

    Raises:
        UserError: a file that is no configuration, or a value that is nothing for one.
    """
    if config is None:
        texts: dict[str, str] = {}
    elif isinstance(config, RunConfig):
        texts = _of_mapping(nested_values(config))
    elif isinstance(config, Mapping):
        texts = _of_mapping(config)
    elif isinstance(config, str | PathLike):
        texts = _of_file(Path(fspath(config)).expanduser())
    elif isinstance(config, Sequence) and all(isinstance(word, str) for word in config):
        texts = split_arguments(config)
    else:
        raise UserError(
            f"a configuration is no {type(config).__name__}; give a mapping, a path, a list of 'key=value', or nothing"
        )
    return texts | _of_mapping(overrides)


def is_whole(config: Config) -> bool:
    """Tell whether every value is given, whoever chose it: a configuration that was loaded, or a run's own."""
    return isinstance(config, RunConfig) or (isinstance(config, str | PathLike) and Path(fspath(config)).is_dir())


def words_of(texts: Mapping[str, str]) -> list[str]:
    """Return the words of a command line."""
    return [f"{key}={text}" for key, text in texts.items()]


def _of_mapping(values: Mapping[str, Any]) -> dict[str, str]:
    flat = dict(_flat(values, ""))
    if "method.name" in flat and "method" not in flat:  # a whole configuration names its recipe, whose options follow
        flat["method"] = flat.pop("method.name")
    return {key: as_argument(_plain(value, key)) for key, value in flat.items()}


def _of_file(path: Path) -> dict[str, str]:
    """Return what a YAML file sets, or a run's folder; the latter goes on where it lies."""
    texts: dict[str, str] = {}
    if path.is_dir():
        texts = _of_mapping({"run.dir": str(path.absolute().parent), "run.name": path.absolute().name})
        path = path / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path} is no file; give a YAML file, a run's folder, a mapping, or a list of 'key=value'")
    content = parse_yaml(read_file(path, str(path)), str(path))
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no mapping; write one 'key: value' on each line")
    return _of_mapping(content) | texts


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values; a mapping that is no section is a value."""
    for name, value in values.items():
        if not isinstance(name, str):
            raise UserError(f"{prefix}{name!r} is no name of an option; give texts, such as 'local.lr'")
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key in SECTIONS:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _plain(value: Any, key: str) -> Any:
    """Return a value as YAML has it."""
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy's, or a tensor of one
        value = value.item()
    if isinstance(value, list | tuple):
        return [_plain(entry, key) for entry in value]
    if isinstance(value, Mapping):
        return {name: _plain(entry, key) for name, entry in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{key} is given a {type(value).__name__}; give a text, a number, true or false, None, or a list")
