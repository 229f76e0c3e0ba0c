"""What a run reads that is not inside the package: models, data sets and files, each named once for many runs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from fedlit.config import CONFIG_DIR, RunConfig, load_config, load_sweep
from fedlit.config.adapter_base import stored_base
from fedlit.config.keys import nearest, show
from fedlit.config.layers import is_sweep
from fedlit.config.places import is_file_name, list_choices, read_path
from fedlit.config.record import flat_values
from fedlit.data.paths import DATA_PATHS, given_paths
from fedlit.errors import UserError

_PACKAGE = Path(__file__).parents[2]
_READS = ("data", "model", "partition")
"""The groups of options on which it depends what a run reads."""

BASE_KEY = "model.path (base)"
"""How the model that an adapter stands on is called, which no key of the configuration names."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model of the hub; without `weights` its configuration and its tokenizer or image processor alone."""

    repo_id: str
    weights: bool

    kind: ClassVar[str] = "model"

    @property
    def name(self) -> str:
        """How it is called in a table."""
        return self.repo_id


@dataclass(frozen=True, slots=True)
class HubData:
    """A data set of the hub, one configuration of it (None if it has one only), and the splits that are read."""

    repo_id: str
    config: str | None
    splits: tuple[str, ...]

    kind: ClassVar[str] = "data"

    @property
    def name(self) -> str:
        """How it is called in a table."""
        return self.repo_id if self.config is None else f"{self.repo_id} {self.config}"


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file or folder that a key of the configuration names."""

    key: str
    path: str

    kind: ClassVar[str] = "file"

    @property
    def name(self) -> str:
        """How it is called in a table."""
        return self.key


Need: TypeAlias = HubModel | HubData | LocalPath


def run_configs(words: Sequence[str], config_dir: Path = CONFIG_DIR) -> list[RunConfig]:
    """Return the configurations that the words of a command line name: a sweep or experiment, or the file of either,
    with `key=value`.

    A name that is both is the sweep, whose cells are the experiment's. Of cells with one model and one data set there
    is one: they read the same.

    Raises:
        UserError: two names or an unknown one; a key that is left to the user, or any other mistake in a configuration.
    """
    names = [word for word in words if "=" not in word or is_file_name(word)]
    overrides = [word for word in words if word not in names]
    if not names:
        return [load_config(overrides, config_dir)]
    if len(names) > 1:
        raise UserError(f"{names[1]} is a second name beside {names[0]}; give one experiment or sweep, then key=value")
    sweeps, experiments = list_choices(config_dir, "sweep"), list_choices(config_dir, "experiment")
    (name,) = names
    if name not in sweeps and is_file_name(name) and not is_sweep(read_path(name, f"{show(name)} (command line)")):
        return [load_config([name, *overrides], config_dir)]
    if name in sweeps or is_file_name(name):
        cells = load_sweep(name, config_dir).cells(overrides)
        distinct: dict[str, list[str]] = {}
        for cell in cells:
            reads = {key: value for key, value in cell.settings.items() if key.split(".")[0] in _READS}
            distinct.setdefault(repr(reads), cell.arguments)
        return [load_config(arguments, config_dir) for arguments in distinct.values()]
    if name in experiments:
        return [load_config([f"experiment={name}", *overrides], config_dir)]
    known = sorted({*sweeps, *experiments})
    raise UserError(f"unknown experiment or sweep {name!r}{nearest(name, known)} Valid names: {', '.join(known)}")


def needs_of(configs: Iterable[RunConfig]) -> list[Need]:
    """Return what the runs read, each thing once; nothing for what is inside the package."""
    models: dict[str, bool] = {}
    data: dict[tuple[str, str | None], dict[str, None]] = {}
    local: dict[LocalPath, None] = {}
    for config in configs:
        parts = {"model.path": (config.model.path, config.model.weights == "pretrained")}
        if config.model.tokenizer is not None:
            parts["model.tokenizer"] = (config.model.tokenizer, False)
        base = stored_base(config.model.path) if _is_local(config.model.path) else None
        if base is not None:
            parts[BASE_KEY] = (base, True)
        for key, (path, weights) in parts.items():
            if _is_local(path):
                local[LocalPath(key, path)] = None
            elif not _is_packaged(path):
                models[path] = models.get(path, False) or weights
        values = flat_values(config)
        keys = [*DATA_PATHS, *(["partition.path"] if config.partition.name == "file" else [])]
        local |= {LocalPath(key, path): None for key in keys for path in given_paths(values[key])}
        for repo_id, name, split in _hub_data(config):
            data.setdefault((repo_id, name), {})[split] = None
    return [
        *local,
        *(HubModel(repo_id, weights) for repo_id, weights in models.items()),
        *(HubData(repo_id, name, tuple(splits)) for (repo_id, name), splits in data.items()),
    ]


def _hub_data(config: RunConfig) -> Iterator[tuple[str, str | None, str]]:
    """Yield name, configuration and split of what `fedlit.data.sources` asks the hub for."""
    data = config.data
    if data.source != "hub" or data.path is not None:
        return
    if data.hub_id is None:
        raise UserError("data.source=hub without a data set; give data.hub_id=<owner/name>, or data.path=<local file>")
    for name in _configurations(data.hub_config):
        yield data.hub_id, name, data.hub_split
        if data.validation_path is None and data.hub_validation_split is not None:
            yield data.hub_id, name, data.hub_validation_split
    if data.test_path is None and data.hub_test_split is not None:
        if data.hub_test_id is not None:
            yield data.hub_test_id, data.hub_test_config, data.hub_test_split
            return
        for name in _configurations(data.hub_config):
            yield data.hub_id, name, data.hub_test_split


def _configurations(given: str | list[str] | None) -> list[str | None]:
    return [None] if given is None else [*given_paths(given)]


def model_need(path: str) -> HubModel | LocalPath | None:
    """Return the need of an adapter's base; None of what is inside the package."""
    if _is_local(path):
        return LocalPath(BASE_KEY, path)
    return None if _is_packaged(path) else HubModel(path, weights=True)


def _is_packaged(path: str) -> bool:
    """Tell whether fedlit.models finds this name inside the package."""
    return path == "tiny" or ("/" not in path and (_PACKAGE / "backbones" / path / "config.json").is_file())


def _is_local(path: str) -> bool:
    """Tell whether transformers would read this model from a folder."""
    return not _is_packaged(path) and (path.startswith((".", "/", "~")) or Path(path).is_dir())
