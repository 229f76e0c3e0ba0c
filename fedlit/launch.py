"""Run a configuration from the process group to the final table."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, TextIO, cast

import transformers
from lightning.fabric import Fabric
from rich.console import Console

from fedlit.assembly import assemble
from fedlit.client_names import short_name
from fedlit.config import RunConfig
from fedlit.errors import DivergenceError, FieldsError, LostPeer, OutOfMemory, UserError
from fedlit.extras import Extras
from fedlit.inputs import Inputs
from fedlit.lab.callbacks import Callback
from fedlit.lab.callbacks.console import ConsoleReport
from fedlit.lab.callbacks.loggers import make_loggers
from fedlit.lab.callbacks.plots import RunPlots
from fedlit.lab.callbacks.samples_shown import SamplesShown
from fedlit.outside.faults import note_plugin
from fedlit.planning import Plan, make_plan
from fedlit.process import communication, slurm
from fedlit.process.console import ConsoleFile
from fedlit.process.devices import require_devices
from fedlit.process.interrupt import (
    StoppedBySignal,
    StopReason,
    StopRequest,
    TimedOut,
    is_out_of_memory,
    out_of_memory,
)
from fedlit.process.memory import keep_freed_memory
from fedlit.process.one_run import require_one_run
from fedlit.process.storage import remove_leftovers, storage_error, write_atomically
from fedlit.round.best_round import BestRound
from fedlit.round.loop import Federation
from fedlit.scores import chosen_on
from fedlit.store.folder import RunFolder
from fedlit.store.layout import make_folder, require_layout
from fedlit.store.lock import RunLock, take_lock
from fedlit.store.status import PATH as STATUS_PATH
from fedlit.store.status import RunStatus, ended, first_status, stored_status, to_json
from fedlit.tasks.encoded import close_examples
from fedlit.versioning import task_version


def federate(inputs: Inputs, stop: StopRequest, extras: Extras | None = None) -> Federation:
    """Run or resume one federation on every process of the group and leave the group.

    status.json tells how it ended. A job that its time limit stops (SIGUSR1) goes back into SLURM's queue, unless it
    could not finish a single round.

    Raises:
        UserError: another run holds the folder, or a mistake in the method or the model; neither changes a result.
        StoppedBySignal, DivergenceError, OutOfMemory: as Federation.run.
        TimedOut: the time limit came before a single round was finished.
        LostPeer: another process of the run is gone, or gives no answer.
        MixedRuns: processes of another run are in the group.
        KeyboardInterrupt: a second Ctrl-C, here or in another process.
    """
    config, extras = inputs.config, extras or Extras()
    quieten()
    keep_freed_memory()
    require_devices(config.compute)
    plan = make_plan(inputs, extras.backbone.load)
    try:
        with _typed_ends(config, stop, starting=True):
            fabric = communication.launch(config.compute)
        with _typed_ends(config, stop):
            require_one_run(config)
            return _attempt(plan, fabric, stop, extras)
    finally:
        communication.shutdown()


def _attempt(plan: Plan, fabric: Fabric, stop: StopRequest, extras: Extras) -> Federation:
    config = plan.inputs.config
    attempt = _Attempt.begin(config, stop)
    try:
        with _typed_ends(config, stop):
            federation = _run(plan, fabric, stop, extras)
        attempt.end_well(federation.best)
        return federation
    except StoppedBySignal as stopped:
        raise replace(attempt.after_signal(stopped, stop), folder=RunFolder(config).path) from None
    except BaseException as error:
        attempt.after_error(error)
        raise
    finally:
        attempt.close()


@contextmanager
def _typed_ends(config: RunConfig, stop: StopRequest, *, starting: bool = False) -> Iterator[None]:
    """Turn what is said of files, memory and lost processes into the errors that tell it in one line."""
    try:
        yield
    except (UserError, FieldsError):
        raise
    except Exception as error:
        if (refused := storage_error(error, RunFolder(config).path, goes_on=True)) is not None:
            raise refused from error
        if is_out_of_memory(error):
            raise out_of_memory(error, f"process {communication.process_index()}") from error
        saved_round = _saved_round(RunFolder(config).checkpoints)
        timeout_s = config.compute.start_timeout_s if starting else config.compute.timeout_s
        lost = communication.lost_peer(error, timeout_s, saved_round, starting=starting)
        if lost is None:
            raise
        # A process that waits in a collective sees two signals as one: it is the other's end that tells it of the
        # second Ctrl-C.
        raise KeyboardInterrupt if stop.reason is StopReason.SIGINT else lost from error


def _saved_round(checkpoints: Path) -> int | None:
    """Return the round of the newest checkpoint by its name alone: nobody may be left to ask."""
    numbers = [path.name.removeprefix("round-") for path in checkpoints.glob("round-*")]
    return max((int(number) for number in numbers if number.isdigit()), default=None)


def _run(plan: Plan, fabric: Fabric, stop: StopRequest, extras: Extras) -> Federation:
    inputs = plan.inputs
    federation, summary = assemble(plan, fabric)
    federation.stop = stop

    of_folder: list[str] = []

    def prepare() -> None:
        version = task_version(inputs, federation.evaluator.task)
        federation.folder.prepare(inputs.partition_record(), summary.device, version)
        of_folder.extend(federation.folder.version_notices(version))
        federation.callbacks = _callbacks(inputs.config, federation, extras)

    _on_first_process(prepare, federation.folder.path)
    try:
        notices, folder = (*summary.notices, *of_folder, *federation.resume()), federation.folder
        start = partial(federation.tell, lambda callback: callback.on_start(summary, folder.records(), notices))
        _on_first_process(start, folder.path)
        federation.run()
        federation.export()
        federation.tell(lambda callback: callback.on_end(federation.folder.records()))
    except DivergenceError as error:
        if error.client_id is None:
            raise
        raise error.at(client_name=short_name(error.client_id, inputs.client_names)) from error
    finally:
        _close(federation.callbacks)
        close_examples(federation.rows)
    return federation


def _on_first_process(action: Callable[[], None], folder: Path) -> None:
    """Let process 0 alone do something, in the run's folder; the others wait for it.

    Raises:
        UserError: on every process, of a user's mistake that process 0 found, or of a full disk.
    """
    refusal = None
    if communication.process_index() == 0:
        try:
            action()
        except Exception as error:
            told = error if isinstance(error, UserError) else storage_error(error, folder, goes_on=True)
            if told is None:
                raise
            refusal = str(told)
    if (refusal := communication.gather_objects(refusal)[0]) is not None:
        raise UserError(refusal)


class _Attempt:
    """This start of a run: process 0 holds the lock of its folder and tells in status.json how it goes."""

    def __init__(self, folder: Path, requeue: bool, status: RunStatus) -> None:
        self._folder = folder
        self._requeue = requeue
        self._status = status
        self._lock: RunLock | None = None

    @classmethod
    def begin(cls, config: RunConfig, stop: StopRequest) -> Self:
        """Take the lock, before anything else is written.

        Raises:
            UserError: on every process, if another run holds it, or has begun under another configuration.
        """
        folder = RunFolder(config)
        attempt = cls(folder.path, config.run.requeue, first_status(config.num_rounds))

        def take() -> None:
            make_folder(folder.path)
            require_layout(folder.path)
            attempt._lock = take_lock(folder.path, on_lost=lambda: stop.ask(StopReason.FOLDER_LOST))
            remove_leftovers(folder.path)
            folder.require_same_run()
            attempt.end("running")

        try:
            _on_first_process(take, folder.path)
        except BaseException:
            attempt.close()
            raise
        return attempt

    def end(self, state: str, reason: str = "") -> None:
        """Write how the run stands, on process 0."""
        if self._holds():
            write_atomically(self._folder / STATUS_PATH, to_json(ended(self._status, state, reason)))

    def end_well(self, best: BestRound) -> None:
        """Write that the run is done, and which of its rounds is the best by which score."""
        on = None if best.key is None else chosen_on(best.key)
        self._status = replace(self._status, chosen_round=best.number, chosen_by=best.key, chosen_on=on)
        self.end("done")

    def after_signal(self, stopped: StoppedBySignal, stop: StopRequest) -> StoppedBySignal | TimedOut:
        """Return how the run ends after a signal, once process 0 has put the job back into the queue if that is how.

        All processes wait for it: srun may kill a job as soon as one of its tasks has left.
        """
        outcome: StoppedBySignal | TimedOut = stopped
        if communication.process_index() == 0:
            state, job = "stopped", slurm.job_id(os.environ)
            if stopped.reason is StopReason.SIGUSR1 and job is not None:
                state, outcome = self._after_time_limit(stopped, stop, job)
            self.end(state, str(outcome))
        return communication.gather_objects(outcome)[0]

    def _after_time_limit(
        self, stopped: StoppedBySignal, stop: StopRequest, job: str
    ) -> tuple[str, StoppedBySignal | TimedOut]:
        if not stopped.num_rounds_here:
            return "timed_out", TimedOut(job=job, elapsed_s=stop.elapsed_s)
        if not self._requeue:
            return "timed_out", stopped.with_then(f"submit job {job} again, or leave out run.requeue=false")
        back = stopped.with_then(f"job {job} is back in the queue and goes on")
        self.end("requeued", str(back))  # before the request, which ends the job
        problem = slurm.requeue(os.environ)
        if problem is not None:
            return "timed_out", stopped.with_then(f"job {job} is not back in the queue ({problem}), submit it again")
        return "requeued", back

    def after_error(self, error: BaseException) -> None:
        """Write why the run fails. Of several processes the first tells: the others only miss it."""
        states = {DivergenceError: "diverged", OutOfMemory: "out_of_memory", KeyboardInterrupt: "stopped"}
        state = next((state for kind, state in states.items() if isinstance(error, kind)), "failed")
        last_line = (str(error).strip().splitlines() or [""])[-1]
        told = isinstance(error, UserError | FieldsError)
        reason = str(error) if told else f"{type(error).__name__}: {last_line}".removesuffix(": ")
        if isinstance(error, LostPeer):
            reason = error.fact
        elif not told and (fault := note_plugin(error)):
            reason = f"{reason} ({fault})"
        stored = stored_status(self._folder)
        if self._holds():
            remove_leftovers(self._folder)  # on a full disk this makes room for the next lines
        if stored is not None and stored.state == "running":
            _write_last_status(self._folder / STATUS_PATH, to_json(ended(stored, state, reason)))

    def _holds(self) -> bool:
        return self._lock is not None and self._lock.is_held()

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()


def _write_last_status(path: Path, text: str) -> None:
    """Write how a run ended, on a full disk too: over the old text, in the room that it has."""
    try:
        write_atomically(path, text)
    except OSError:
        with suppress(OSError):
            path.write_text(text, encoding="utf-8")


def _close(callbacks: Sequence[Callback]) -> None:
    """Close every callback: one that fails, a service it needs being gone, does not keep the others from it."""
    for callback in callbacks:
        try:
            callback.close()
        except Exception as error:
            warnings.warn(f"{type(callback).__name__} did not close ({error})", stacklevel=2)


def quieten() -> None:
    """Keep the libraries' own progress reports off the console, where they would stand between the rounds' lines."""
    for name in ("lightning.fabric", "lightning.pytorch"):  # the latter takes over the former's when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="The .srun. command is available on your system but is not used")


def _console(stop: StopRequest) -> Console:
    """Return the console of a run, which stops when nobody reads it any more."""
    if sys.stdout is None:  # closed by who started the run
        return Console()
    return Console(file=cast(TextIO, ConsoleFile(sys.stdout, lambda: stop.ask(StopReason.CONSOLE_LOST))))


def _callbacks(config: RunConfig, federation: Federation, extras: Extras) -> list[Callback]:
    stop = federation.stop
    report: list[Callback] = []
    if extras.console:
        console = _console(stop)
        report.append(ConsoleReport(console, progress=config.logging.progress))
        if config.logging.samples_shown:
            report.append(SamplesShown(console, federation.folder.path, config.logging.samples_shown))
    # The caller's come last: one that fails has kept no other from hearing of it.
    return [
        *report,
        RunPlots(federation.folder.plots),
        *make_loggers(config, federation.folder.path),
        *extras.callbacks,
    ]
