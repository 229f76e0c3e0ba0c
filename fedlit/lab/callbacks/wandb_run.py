"""One W&B run per federation, however often it was stopped: every round once, under its own number.

Traps that this file keeps a user out of, all seen with wandb 0.31: it writes to disk every 15 s, so that a killed run
would leave nothing; an offline run does not know what earlier attempts logged, and `wandb sync` shows a round that was
logged twice as two; its helper process dies of the SIGTERM that SLURM sends to every process of a job, with the last
second's entries, and the next call raises; offline runs look up a telemetry host and keep tables in the home folder;
Lightning's WandbLogger counts calls instead of rounds and changes WANDB_MODE for the whole process.
"""

import contextlib
import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.config import LoggingConfig, RunConfig
from fedlit.config.record import nested_values
from fedlit.errors import UserError
from fedlit.lab.callbacks import Callback, RunSummary, numbers
from fedlit.lab.callbacks.wandb_content import (
    client_names,
    environment,
    final_media,
    keep_samples,
    kept_samples,
    partition_media,
    sample_rows,
    samples_table,
    summary_scores,
)
from fedlit.lab.callbacks.wandb_files import History, UnreadableFileError, read_history
from fedlit.process.storage import write_atomically
from fedlit.store.layout import read_run_id
from fedlit.tasks import Sample

SAMPLES = "samples"
_FLUSH_INTERVAL_S = 1.0
_INIT_TIMEOUT_S = 30.0
_DATA_DIR = "WANDB_DATA_DIR"
_LOG = logging.getLogger(__name__)


class WandbRun(Callback):
    """Logs numbers and pictures of every round to W&B; what an earlier attempt did not get to log is caught up.

    A run that is not on a server is opened at its first entry, so that a finished one that is started again leaves no
    trace. W&B never ends a federation once it has begun: what fails is told, and logged by the next start.
    """

    def __init__(self, logging: LoggingConfig) -> None:
        self._logging = logging
        self._run: Any = None
        self._data_folder: str | None = None
        self._config = RunConfig()
        self._folder = Path()
        self._names: Sequence[str] = ()
        self._mode = "disabled"
        self._id = ""
        self._history = History()
        self._logged: set[int] = set()
        self._records: list[dict[str, Any]] = []
        self._samples: tuple[int, Sequence[Sample]] = (-1, ())
        self._last_table = -1
        self._goes_on = False
        self._ended = False

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """Find out what the folder's W&B run holds, open it if there is something to add, and add it.

        Raises:
            UserError: W&B does not start.
        """
        self._config, self._folder, self._names = summary.config, summary.folder, summary.client_names
        self._name_data_folder(summary.folder)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        self._mode = _mode(self._logging.wandb)
        if self._mode == "disabled":
            return
        self._id = run_id(summary.folder / "wandb")
        self._history = _history(summary.folder / "wandb", self._id, records)
        self._logged = set(self._history.rounds)
        self._last_table = max(self._history.rounds_with(SAMPLES), default=-1)
        if self._mode == "online" or not records:
            self._open()
        for record in records:
            self._log(record)

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Log a round, unless an earlier attempt did."""
        if samples:
            self._samples = (record["round"], samples)
        self._log(record, is_new=True)

    def on_end(self, records: Sequence[dict[str, Any]]) -> None:
        """Log the pictures of the whole run, the last samples if no round's entry has them, and the result."""
        self._ended = True
        if self._mode != "disabled" and (self._goes_on or not self._history.finished):
            self._guard(self._log_end)

    def close(self) -> None:
        """Finish the run: what wandb still holds is written."""
        if self._run is not None:
            self._guard(lambda: self._run.finish(exit_code=0 if self._ended else 1))
            self._run = None
        if self._data_folder is not None and os.environ.get(_DATA_DIR) == self._data_folder:
            del os.environ[_DATA_DIR]

    def _name_data_folder(self, folder: Path) -> None:
        """Let tables wait for their upload beside the run, where `wandb sync` finds them, not in the home folder."""
        if _DATA_DIR not in os.environ:
            self._data_folder = os.environ[_DATA_DIR] = str((folder / "wandb" / "data").absolute())

    def _open(self) -> None:
        """Start or go on with the W&B run of this folder; by `logging.wandb=auto` offline, if its server is not there.

        Raises:
            UserError: it does not start.
        """
        import wandb  # noqa: PLC0415  takes a second, and only this callback needs it

        try:
            try:
                self._run = self._start(self._mode)
            except wandb.errors.CommError as error:
                if self._logging.wandb != "auto":
                    raise
                _LOG.warning("W&B is not there (%s); logging offline, `wandb sync` uploads it", _reason(error))
                _part()  # the helper process holds on to the id
                self._mode = "offline"
                self._run = self._start("offline")
        except (wandb.errors.Error, ValueError) as error:
            raise UserError(f"W&B cannot start ({_reason(error)}); use logging.wandb=offline or disabled") from error
        if self._mode == "online":  # the server knows what it has, and drops what is older
            self._logged = set(range(self._run.starting_step - self._history.num_ends))
        self._run.define_metric("round")
        self._run.define_metric("*", step_metric="round", step_sync=False)

    def _start(self, mode: str) -> Any:
        import wandb  # noqa: PLC0415  as above

        settings = wandb.Settings(
            x_transaction_log_flush_interval=_FLUSH_INTERVAL_S,
            console="off",
            silent=True,
            x_save_requirements=False,  # takes a second, and the run folder's environment.json tells
            init_timeout=_INIT_TIMEOUT_S,
        )
        return wandb.init(
            mode=mode,  # type: ignore[arg-type]
            project=self._logging.project,
            group=self._logging.group,
            job_type=self._config.method.name,
            tags=self._logging.tags or None,
            name=self._folder.name,
            id=self._id,
            resume="allow",
            dir=str(self._folder),
            config={**nested_values(self._config), **environment(self._folder), **client_names(self._names)},
            settings=settings,
        )

    def _log(self, record: dict[str, Any], *, is_new: bool = False) -> None:
        self._records.append(record)
        if self._mode != "disabled" and record["round"] not in self._logged:
            self._guard(lambda: self._log_round(record["round"], is_new=is_new))

    def _log_round(self, number: int, *, is_new: bool) -> None:
        """Log the newest record, all in one entry: wandb closes a step with it."""
        if self._run is None:
            self._open()
        entry: dict[str, Any] = {**numbers(self._records, self._config.data.task)}
        if number == 0:
            entry |= partition_media(self._folder)
        if is_new and self._is_table_due(number):
            keep_samples(self._folder, *self._samples)
        if (rows := kept_samples(self._folder, number)) is not None:
            entry[SAMPLES] = samples_table(rows)
            self._last_table = number
        # A run that is given more rounds has steps of its earlier ends between its rounds.
        self._run.log(entry, step=number + self._history.num_ends, commit=True)
        self._run.summary.update(summary_scores(self._records, self._config))
        self._logged.add(number)
        self._goes_on = True

    def _is_table_due(self, number: int) -> bool:
        """Tell whether the samples of the round that was just evaluated belong into its entry."""
        if self._samples[0] != number:
            return False
        first, every = self._last_table < 0, self._logging.samples_every
        return first or number - self._last_table >= every or number == self._config.num_rounds

    def _log_end(self) -> None:
        if self._run is None:
            self._open()
        entry = final_media(self._folder)
        if self._samples[0] > self._last_table:
            entry[SAMPLES] = samples_table(sample_rows(*self._samples))
        known = set() if self._goes_on else self._history.keys_at_end
        entry = {key: value for key, value in entry.items() if f"{key}/_type" not in known}
        if entry:
            self._run.log(entry, step=self._records[-1]["round"] + 1 + self._history.num_ends, commit=True)
        self._run.summary.update(summary_scores(self._records, self._config))
        if self._logging.artifact:
            self._run.log_artifact(_result(self._folder))

    def _guard(self, action: Callable[[], None]) -> None:
        """Do something with W&B; if that fails, say so and leave W&B alone from here on."""
        try:
            action()
        except UserError:
            raise
        except Exception as error:  # whatever a lost helper process, a full disk or a changed library raises
            _LOG.warning("W&B stopped (%s); the run goes on, and its next start logs what is missing", _reason(error))
            self._mode, self._run = "disabled", None
            _part()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def run_id(folder: Path) -> str:
    """Return the id of a run, chosen once and kept in wandb's folder, wherever that is moved or copied."""
    path = folder / "run_id"
    known = read_run_id(path)
    if known is None:
        known = uuid.uuid4().hex[:12]
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{known}\n")
    return known


def _history(folder: Path, identity: str, records: Sequence[Mapping[str, Any]]) -> History:
    """Return what earlier attempts logged; where their files cannot be read, what the record says of them."""
    try:
        return read_history(folder, identity)
    except (UnreadableFileError, OSError) as error:
        _LOG.warning("W&B: %s; taking every round of metrics.jsonl for logged", error)
        return History(entries=tuple({"round": record["round"]} for record in records))


def _mode(choice: str) -> str:
    """Return wandb's mode: `auto` is online where there is a login, else offline; WANDB_MODE is respected."""
    if choice != "auto":
        return choice
    if given := os.environ.get("WANDB_MODE"):
        return {"dryrun": "offline"}.get(given, given)
    import wandb  # noqa: PLC0415

    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _part() -> None:
    """Part from the helper process, which may be gone, without the traceback that wandb would print at exit."""
    import wandb  # noqa: PLC0415

    with contextlib.suppress(Exception):
        wandb.teardown(exit_code=1)


def _result(folder: Path) -> Any:
    """Return the run's result as an artifact that refers to its files, instead of copying them."""
    import wandb  # noqa: PLC0415

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", folder.name)[:128], type="model")
    artifact.add_dir(str(folder / "adapter"), skip_cache=True, policy="immutable")
    return artifact
