"""The run folder: configuration, environment, partition and one record a round, written whole or not at all.

Only process 0 writes; every process may read.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlit.config import RunConfig, differences, load_yaml, run_folder, to_yaml
from fedlit.config.record import why_no_more_rounds
from fedlit.data.chat_template import CHAT_TEMPLATE, given_template
from fedlit.errors import UserError
from fedlit.outside.record import (
    from_json,
    plugin_records,
    require_named,
    why_another_run,
)
from fedlit.process.storage import sync, write_atomically
from fedlit.scores import described
from fedlit.store import example_scores, records
from fedlit.store.clients import NAME as CLIENTS
from fedlit.store.clients import append_clients, clients_until
from fedlit.store.cohort_file import cohort_file, require_same_cohort_file
from fedlit.store.environment import ENVIRONMENT, environment, stored_environment
from fedlit.store.layout import make_folder, read_run_id, read_text, require_layout, require_place
from fedlit.store.partition import PARTITION, DamagedPartition, read_partition, same_shape, without_names
from fedlit.store.records import Record
from fedlit.store.samples import NAME as SAMPLES
from fedlit.store.samples import append_samples, samples_until
from fedlit.store.task_version import KEY as VERSION
from fedlit.store.task_version import TaskVersion


def with_own_template(config: RunConfig, run: Path) -> RunConfig:
    """Return a run's configuration with the chat template that lies in its folder, if it has one there."""
    stored = run / CHAT_TEMPLATE
    if config.data.chat_template is None or not stored.is_file():
        return config
    return replace(config, data=replace(config.data, chat_template=str(stored)))


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
        require_same_cohort_file(self.path, self.config)
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

    def prepare(self, partition: Mapping[str, Any], device: str, version: TaskVersion | None = None) -> None:
        """Write config.yaml, environment.json, partition.json and the chat template that was given unless the folder
        has them whole; a run that is given more rounds (`require_same_run`) gets their number into its config.yaml.
        """
        make_folder(self.path)
        contents: dict[str, Callable[[], str]] = {
            # First of all, since a folder without it is taken for somebody else's.
            "config.yaml": lambda: to_yaml(self.config),
            ENVIRONMENT: lambda: _environment_text(self._told_environment(device, version)),
            PARTITION: lambda: json.dumps(partition) + "\n",
        }
        template = given_template(self.config.data)
        if template is not None:
            contents[CHAT_TEMPLATE] = lambda: str(template)
        is_whole = same_shape(self._partition(), without_names(partition))
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

    def _told_environment(self, device: str, version: TaskVersion | None) -> dict[str, Any]:
        told = environment(device, plugin_records(self.config), described(self.config.data.scores or ()))
        start = {"start": self._start} if self._start else {}
        return {
            **told,
            **start,
            **cohort_file(self.config),
            **({} if version is None else {VERSION: version.to_json()}),
        }

    def version_notices(self, version: TaskVersion) -> list[str]:
        """Return a line if the run goes on with another task version than it began with, which environment.json then
        tells; a run that an older fedlit began stays without one.
        """
        content, done = stored_environment(self.path), self.records()[-1:]
        before = TaskVersion.from_json(content.get(VERSION))
        if before is None or (done and done[0]["round"] >= self.config.num_rounds):
            return []
        after = before.going_on(version)
        if not (changed := before.differing(after)):
            return []
        write_atomically(self.path / ENVIRONMENT, _environment_text({**content, VERSION: after.to_json()}))
        return [
            f"{self.path} began with another task version ({', '.join(changed)}); tables will not compare its scores "
            "with those of other runs"
        ]

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

    def restore_records(self, text: str | None) -> None:
        """Put metrics.jsonl back to what it was at a checkpoint, and what stands beside it by round to the same round;
        None stands for the start of the run.
        """
        tables = {CLIENTS: clients_until, SAMPLES: samples_until}
        if text is None:
            self.records_path.unlink(missing_ok=True)
            for name in tables:
                (self.path / name).unlink(missing_ok=True)
            example_scores.keep_until(self.path, None)
            return
        write_atomically(self.records_path, text)
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


def _environment_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def why_other_plugins(folder: Path, config: RunConfig) -> str | None:
    """Return why a folder's run cannot go on with the code that its parts from outside have now; None if it can."""
    before = from_json(stored_environment(folder).get("plugins"))
    return None if before is None else why_another_run(before, plugin_records(config))
