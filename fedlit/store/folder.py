"""The run folder: configuration, environment, partition and one record a round, written whole or not at all.

Only process 0 writes; every process may read.
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from fedlit.config import RunConfig, differences, load_yaml, run_folder, to_yaml
from fedlit.config.record import why_no_more_rounds
from fedlit.data.chat_template import given_template
from fedlit.data.json_files import parse_json
from fedlit.errors import UserError
from fedlit.outside.record import (
    PluginRecord,
    from_json,
    plugin_records,
    require_named,
    to_json,
    why_another_run,
)
from fedlit.process.storage import sync, write_atomically
from fedlit.scores import described
from fedlit.store import example_scores, records
from fedlit.store.clients import NAME as CLIENTS
from fedlit.store.clients import append_clients, clients_until
from fedlit.store.layout import make_folder, read_run_id, read_text, require_layout, require_place
from fedlit.store.records import Record
from fedlit.store.samples import NAME as SAMPLES
from fedlit.store.samples import append_samples, samples_until

PARTITION = "partition.json"
ENVIRONMENT = "environment.json"
_PART_LABELS = ("train_labels", "test_labels", "validation_labels")
_PART_SIZES = ("num_train", "num_test", "num_validation")
CHAT_TEMPLATE = "chat_template.jinja"
"""The file of `data.chat_template` as the run began with it, in the run's folder."""


class DamagedPartition(UserError):
    """A run's partition.json is no JSON, or no object."""


def with_own_template(config: RunConfig, run: Path) -> RunConfig:
    """Return a run's configuration with the chat template that lies in its folder, if it has one there."""
    stored = run / CHAT_TEMPLATE
    if config.data.chat_template is None or not stored.is_file():
        return config
    return replace(config, data=replace(config.data, chat_template=str(stored)))


def read_partition(folder: Path) -> dict[str, Any] | None:
    """Return what a run's partition.json holds (`fedlit.partition.shards.partition_record`); None if there is none.

    Raises:
        DamagedPartition: it is not what a run writes.
        UserError: there is a folder in its place.
    """
    path = folder / PARTITION
    if path.is_dir():
        raise UserError(f"{path} is a folder where a run keeps a file; move it away")
    if not path.is_file():
        return None
    remedy = "mend it, or take it away: the run's next start writes it anew"
    try:
        content = parse_json(path.read_bytes(), f"{folder} has a damaged {PARTITION}", remedy)
    except UserError as error:
        raise DamagedPartition(str(error)) from None
    if not _is_partition(content):
        raise DamagedPartition(f"{folder} has a damaged {PARTITION} (not what a run writes there); {remedy}")
    return cast(dict[str, Any], content)


def _is_partition(content: Any) -> bool:
    """Tell whether a reader may go through clients and their counts; a key that an older run lacks is no damage."""
    if not isinstance(content, dict) or not isinstance(content.get("heterogeneity", {}), dict):
        return False
    clients = content.get("clients", [])
    if not isinstance(clients, list) or not all(isinstance(client, dict) for client in clients):
        return False
    counts = [client.get(key, {}) for client in clients for key in _PART_LABELS]
    sizes = [client.get(key, 0) for client in clients for key in _PART_SIZES]
    numbers = [number for count in counts if isinstance(count, dict) for number in count.values()]
    whole = all(isinstance(count, dict) for count in counts) and all(type(each) is int for each in sizes + numbers)
    skews = content.get("heterogeneity", {}).values()
    return whole and all(skew is None or isinstance(skew, int | float) for skew in skews)


def _same_shape(value: Any, like: Any) -> bool:
    """Tell whether JSON holds what it should, as far as names and types tell."""
    if type(value) is not type(like):
        return False
    if isinstance(like, dict):
        return all(key in value and _same_shape(value[key], entry) for key, entry in like.items())
    if isinstance(like, list) and like:
        return all(_same_shape(entry, model) for entry, model in zip(value, like, strict=False))
    return True


def _without_names(partition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a partition without its clients' names: folders of older versions have none, and are not damaged."""
    clients = [
        {key: value for key, value in client.items() if key not in ("name", "values")}
        for client in partition.get("clients", ())
    ]
    return {**partition, **({"clients": clients} if clients else {})}


class RunFolder:
    """Paths of one run and the files at its top."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.path = run_folder(config)
        self.records_path = self.path / records.NAME
        self.checkpoints = self.path / "checkpoints"
        self.plots = self.path / "plots"
        self.adapter = self.path / "adapter"
        self._start: Mapping[str, str] = {}

    def require_place(self) -> None:
        """Raise a UserError if the folder cannot be made or written, or its W&B run is not known."""
        if self.config.dry_run:
            return
        require_place(self.path)
        if "wandb" in self.config.logging.loggers and self.config.logging.wandb != "disabled":
            read_run_id(self.path / "wandb" / "run_id")

    def require_same_run(self) -> None:
        """Raise a UserError if the folder holds a run of another configuration, something that is no run, or folders
        where a run keeps files.

        A larger num_rounds is the same run where the rounds that are done are those of the longer one. Parts from
        outside must be findable by other processes, and of the code that the run began with.
        """
        require_named(self.config)
        plugin_records(self.config)  # hashed now, before somebody edits a file
        require_layout(self.path)
        stored = self.path / "config.yaml"
        if not stored.is_file():
            # A run that ended before it wrote config.yaml, or while it did, leaves its lock, its status, hidden files.
            entries = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
            if any(not name.startswith(".") for name in entries - {"lock.json", "status.json"}):
                raise UserError(f"{self.path} exists and is no run folder (no config.yaml); choose another run.name")
            return
        in_folder = _stored_config(stored)
        old, new = in_folder.num_rounds, self.config.num_rounds
        changes = differences(replace(in_folder, num_rounds=new) if new > old else in_folder, self.config)
        if changes:
            raise UserError(
                f"{self.path} belongs to another configuration ({'; '.join(changes[:3])}); "
                "choose another run.name, or move the folder away"
            )
        if new > old:
            reached_last = (self.checkpoints / f"round-{old:04d}").is_dir()
            reason = why_no_more_rounds(in_folder, new, reached_last=reached_last)
            if reason is not None:
                raise UserError(f"{self.path} cannot go on from num_rounds={old} to {new}: {reason}")
        self._require_same_plugins()
        stored = self.path / CHAT_TEMPLATE
        if stored.is_file() and read_text(stored) != given_template(self.config.data):
            raise UserError(
                f"{self.path} began with another text of data.chat_template={self.config.data.chat_template}; bring it "
                f"back from {stored}, or choose another run.name"
            )

    def _require_same_plugins(self) -> None:
        if (reason := why_other_plugins(self.path, self.config)) is not None:
            raise UserError(f"{self.path} {reason}")

    def require_same_rows(self, key: str, checksum: str | None) -> None:
        """Raise a UserError if the folder's run began with other rows, or other shards of them: an edited file, another
        Python's docstrings, another version of what clusters texts. `key` is that of the checksum in partition.json;
        of a validation set it is missing where there is none, and `checksum` None.
        """
        partition = self._partition()
        before = (partition or {}).get(key)
        may_be_missing = partition is not None and key == "validation_rows_sha256"
        if before != checksum and (before is not None or may_be_missing):
            what = {
                "test_rows_sha256": "other test rows",
                "validation_rows_sha256": "other validation rows, or none,",
                "shards_sha256": "other shards of the rows",
            }.get(key, "other rows")
            raise UserError(
                f"{self.path} began with {what} than data.name={self.config.data.name} gives today; "
                "bring the data back, or choose another run.name"
            )

    def require_same_choice(self) -> None:
        """Raise a UserError if the folder's run chooses on another set, or scores the test set at other rounds; for a
        run whose configuration does not tell that it has a validation set.
        """
        stored = self.path / "config.yaml"
        if not stored.is_file():
            return
        before, asked = _stored_config(stored).eval, self.config.eval
        for name in ("choose_on", "test"):
            if (old := getattr(before, name)) != (new := getattr(asked, name)):
                raise UserError(
                    f"{self.path} belongs to another configuration (eval.{name}: {old} in the folder, {new} asked "
                    f"for); give eval.{name}={old}, choose another run.name, or move the folder away"
                )

    def begin_from(self, start: Mapping[str, str]) -> None:
        """Take up what environment.json is to tell of the adapter that the run starts from (`AdapterStart.record`).

        Raises:
            UserError: the folder's run began with another one.
        """
        self._start = dict(start)
        before = stored_environment(self.path).get("start")
        if isinstance(before, dict) and before.get("sha256") != start["sha256"]:
            raise UserError(
                f"{self.path} began with another adapter than model.path={start['adapter']} is today; bring its files "
                "back, or choose another run.name"
            )

    def notices(self) -> list[str]:
        """Return a line where partition.json is there and cannot be understood."""
        stored = self.path / PARTITION
        if not stored.exists() or self._partition() is not None:
            return []
        return [f"{stored} is damaged; it is written anew from today's rows, which the run may not have begun with"]

    def _partition(self) -> dict[str, Any] | None:
        """Return partition.json; None if it is not there or damaged: it follows from the rows and is written anew."""
        try:
            return read_partition(self.path)
        except DamagedPartition:
            return None

    def prepare(self, partition: Mapping[str, Any], device: str) -> None:
        """Write config.yaml, environment.json, partition.json and the chat template that was given unless the folder
        has them whole; a run that is given more rounds (`require_same_run`) gets their number into its config.yaml.
        """
        make_folder(self.path)
        contents: dict[str, Callable[[], str]] = {
            # First of all, since a folder without it is taken for somebody else's.
            "config.yaml": lambda: to_yaml(self.config),
            ENVIRONMENT: lambda: json.dumps(self._told_environment(device), indent=2) + "\n",
            PARTITION: lambda: json.dumps(partition) + "\n",
        }
        template = given_template(self.config.data)
        if template is not None:
            contents[CHAT_TEMPLATE] = lambda: str(template)
        is_whole = _same_shape(self._partition(), _without_names(partition))
        for name, content in contents.items():
            if not (self.path / name).exists() or (name == PARTITION and not is_whole):
                write_atomically(self.path / name, content())
        stored = self.path / "config.yaml"
        in_folder = _stored_config(stored)
        if self.config.num_rounds > in_folder.num_rounds:
            write_atomically(stored, to_yaml(replace(in_folder, num_rounds=self.config.num_rounds)))
        for folder in (self.checkpoints, self.plots):
            folder.mkdir(exist_ok=True)
        sync(self.path)

    def _told_environment(self, device: str) -> dict[str, Any]:
        told = environment(device, plugin_records(self.config), described(self.config.data.scores or ()))
        return {**told, "start": self._start} if self._start else told

    def records(self) -> list[Record]:
        """Return the records so far."""
        return records.read_records(self.path)

    def append(self, record: Record, clients: Sequence[Mapping[str, Any]] = ()) -> None:
        """Add one round to metrics.jsonl, and to clients.jsonl the lines of its clients, which are there first."""
        append_clients(self.path, clients)
        with self.records_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep_examples(
        self, round_number: int, samples: Sequence[Mapping[str, Any]], scores: Mapping[str, Sequence[Any]]
    ) -> None:
        """Add an evaluation to samples.jsonl, and write the columns of its scores of single examples to a file of its
        own, if there are any. It is on the disk before the round's record is.
        """
        if scores:
            example_scores.write(self.path, round_number, scores)
        append_samples(self.path, [{"round": round_number, **line} for line in samples])

    def restore_records(self, copy: Path | None) -> None:
        """Put metrics.jsonl back to what it was at a checkpoint, and what stands beside it by round to the same round;
        None stands for the start of the run.
        """
        tables = {CLIENTS: clients_until, SAMPLES: samples_until}
        if copy is None:
            self.records_path.unlink(missing_ok=True)
            for name in tables:
                (self.path / name).unlink(missing_ok=True)
            example_scores.keep_until(self.path, None)
            return
        write_atomically(self.records_path, copy.read_text(encoding="utf-8"))
        last_round = next(iter(records.newest_first(self.path)))["round"]
        for name, until in tables.items():
            if (self.path / name).is_file():
                write_atomically(self.path / name, until(self.path, last_round))
        example_scores.keep_until(self.path, last_round)


def _stored_config(path: Path) -> RunConfig:
    """Return the configuration in a run folder.

    Raises:
        UserError: the file is damaged, or of another version.
    """
    text = read_text(path)
    try:
        return load_yaml(text, str(path))
    except UserError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not the configuration of a run; mend it, or move the folder away") from error


def why_other_plugins(folder: Path, config: RunConfig) -> str | None:
    """Return why a folder's run cannot go on with the code that its parts from outside have now; None if it can."""
    before = from_json(stored_environment(folder).get("plugins"))
    return None if before is None else why_another_run(before, plugin_records(config))


def stored_environment(folder: Path) -> dict[str, Any]:
    """Return environment.json; nothing if it is not there or damaged: it is for readers."""
    try:
        content = json.loads((folder / ENVIRONMENT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def environment(
    device: str, plugins: Sequence[PluginRecord] = (), scores: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a reader needs to repeat the run: versions, commit, device, the code of parts from outside, and what
    their scores are called.
    """
    packages = (
        "fedlit",
        "torch",
        "lightning",
        "transformers",
        "peft",
        "datasets",
        "torchmetrics",
        "wandb",
        "omegaconf",
        "numpy",
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "commit": _commit(),
        "packages": {name: _version(name) for name in packages},
        "plugins": to_json(plugins),
        "scores": dict(scores or {}),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source tree, marked when files differ from it; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    result = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None
