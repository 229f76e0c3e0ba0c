"""Runs side by side on one machine, each in processes of its own, with devices of its own and its console in a file."""

import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedlit.config import Cell, RunConfig, read_stored
from fedlit.errors import UserError
from fedlit.lab.sweeps.cells import load_cell
from fedlit.lab.sweeps.placing import other_settings
from fedlit.lab.sweeps.starting import Beginner, beginner
from fedlit.lab.sweeps.tables import duration
from fedlit.process.interrupt import LOST_PEER_EXIT_CODE, collected
from fedlit.process.warm import Process
from fedlit.store.status import read_status

POLL_S = 0.1

GRACE_S = 60.0
"""After one process of a run has failed, how long the others may take to notice it."""

EARLY = frozenset({"stopped", "not begun"})
"""Ends that the user asked for: the same command goes on."""

TOLD = ("error: ", "diverged: ", "out of memory: ", "timed out: ")
"""Beginnings of the lines in which a run tells how it ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalRun:
    """One run: its name in messages, its arguments, what they make, and the run folder."""

    name: str
    arguments: tuple[str, ...]
    config: RunConfig
    folder: Path

    @property
    def log(self) -> Path:
        """Where its console goes."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def is_done(self) -> bool:
        """Tell whether the folder holds the whole run, and this one: the rest is for the run itself to refuse."""
        if read_status(self.folder).state != "done" or not (self.folder / "config.yaml").is_file():
            return False
        there = read_stored((self.folder / "config.yaml").read_text(encoding="utf-8"), str(self.folder / "config.yaml"))
        return there.num_rounds >= self.config.num_rounds and not other_settings(self.folder, self.config)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended: `done`, `failed`, `stopped`, `not begun`, or `running` where somebody else is at it. reason: one
    line.
    """

    run: LocalRun
    state: str
    reason: str = ""


def local_runs(cells: Sequence[Cell]) -> list[LocalRun]:
    """Return the cells of a sweep as runs of this machine.

    Raises:
        UserError: the first cell whose configuration is a mistake.
    """
    return [
        LocalRun(name=cell.name, arguments=tuple(cell.arguments), config=load_cell(index, cell), folder=cell.folder)
        for index, cell in enumerate(cells)
    ]


def visible_gpus(environ: Mapping[str, str]) -> list[str]:
    """Return this machine's GPUs as CUDA_VISIBLE_DEVICES names them, that variable's own if it is set."""
    if "CUDA_VISIBLE_DEVICES" in environ:
        return [name.strip() for name in environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip() not in ("", "-1")]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in done.stdout.splitlines()))]


def device_masks(num_jobs: int, num_devices: int, gpus: Sequence[str]) -> list[str | None]:
    """Return for each of the runs side by side the GPUs it may see; None without GPUs.

    Raises:
        UserError: more GPUs asked for than there are.
    """
    if not gpus:
        return [None] * num_jobs
    if num_jobs * num_devices > len(gpus):
        most = len(gpus) // num_devices
        remedy = f"give --jobs={most}" if most else f"give --devices={len(gpus)}"
        raise UserError(f"--jobs={num_jobs} with --devices={num_devices} takes more than {len(gpus)} GPUs; {remedy}")
    return [",".join(gpus[job * num_devices : (job + 1) * num_devices]) for job in range(num_jobs)]


def run_locally(
    runs: Sequence[LocalRun],
    masks: Sequence[str | None],
    num_devices: int,
    say: Callable[[str], None],
    *,
    warm: bool = True,
    cancelled: Callable[[str], bool] = lambda _: False,
) -> list[Outcome]:
    """Run federations to their ends, as many at a time as there are masks, and return how each ended, in their order.

    A run that is done is left as it is, another one goes on where it stopped. SIGINT, SIGTERM or SIGHUP lets all stop
    at their next step; a second one interrupts them, a third kills them.

    Args:
        runs: with folders of their own.
        masks: of `device_masks`.
        num_devices: processes of each run.
        say: gets a line whenever a run begins or ends.
        warm: fork the runs from one process that has imported everything, where that can be done.
        cancelled: tells by name whether a run is not wanted any more: it is not begun, or stopped at its next step.
    """
    waiting = deque(enumerate(runs))
    free, active = list(masks), list[_Active]()
    outcomes: dict[int, Outcome] = {}
    with (
        collected(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as asked,
        beginner([run.config for run in runs], say, warm=warm) as begins,
    ):
        num_passed_on = 0
        while active or (waiting and not asked):
            while waiting and free and not asked:
                place, run = waiting.popleft()
                title = f"[{place + 1}/{len(runs)}] {run.name}"
                if settled := _not_wanted(run, cancelled) or _settled(run):
                    outcomes[place] = settled
                    say(f"{title}: {settled.reason}")
                    continue
                going_on = read_status(run.folder).num_finished_rounds
                say(f"{title}: {f'goes on after round {going_on}' if going_on else 'begins'}")
                mask = free.pop(0)
                active.append(_begin(begins, place, title, run, num_devices, mask=mask, last=not waiting))
            while num_passed_on < len(asked):
                num_passed_on += 1
                _pass_on(num_passed_on, active, say)
            for entry in [entry for entry in active if not entry.cancelled and cancelled(entry.run.name)]:
                entry.cancelled = True
                entry.send(signal.SIGTERM)  # as often as one likes: whoever cancelled may have sent it too
            for ended in [entry for entry in active if entry.poll() is not None]:
                active.remove(ended)
                free.append(ended.mask)
                outcomes[ended.place] = ended.finish(say, asked=bool(asked))
            time.sleep(POLL_S)
    for place, run in waiting:
        outcomes[place] = Outcome(run=run, state="not begun")
    return [outcomes[place] for place in range(len(runs))]


@dataclass(kw_only=True, slots=True)
class _Active:
    """A run that is going on. mask: the GPUs it sees. console_start: length of the console before it, in bytes.
    failed_s: when its first process failed.
    """

    place: int
    title: str
    run: LocalRun
    mask: str | None
    processes: list[Process]
    console_start: int
    cancelled: bool = False
    started_s: float = field(default_factory=time.monotonic)
    failed_s: float | None = None

    def poll(self) -> int | None:
        """Return the exit code of the run once all its processes have ended: that of the first that failed by itself,
        not for the loss of another.
        """
        codes = [process.poll() for process in self.processes]
        if None not in codes:
            failed = sorted((code for code in codes if code), key=lambda code: code == LOST_PEER_EXIT_CODE)
            return next(iter(failed), 0)
        if any(codes):
            self.failed_s = self.failed_s or time.monotonic()
            if time.monotonic() - self.failed_s > GRACE_S:
                self.send(signal.SIGKILL)
        return None

    def send(self, number: int) -> None:
        """Send a signal to the processes that still run."""
        for process in self.processes:
            process.send_signal(number)  # none where it has ended

    def finish(self, say: Callable[[str], None], *, asked: bool) -> Outcome:
        """Return how the run ended, and say so; with `asked`, any early end is the user's wish."""
        code, length = self.poll(), duration(time.monotonic() - self.started_s)
        status = read_status(self.run.folder)
        if code == 0:
            say(f"{self.title}: done in {length}")
            return Outcome(run=self.run, state="done")
        if asked or self.cancelled or status.state == "stopped":
            say(f"{self.title}: stopped; {status.num_finished_rounds} finished rounds are saved")
            return Outcome(run=self.run, state="stopped", reason="stopped by a signal")
        reason = _last_error(self.run.log, self.console_start) or status.reason or f"exit code {code}"
        say(f"{self.title}: failed after {length} (exit code {code}): {reason}; see {self.run.log}")
        return Outcome(run=self.run, state="failed", reason=reason)


def _not_wanted(run: LocalRun, cancelled: Callable[[str], bool]) -> Outcome | None:
    """Return the outcome of a run that was cancelled before it began."""
    return Outcome(run=run, state="not begun", reason="was cancelled, not begun") if cancelled(run.name) else None


def _settled(run: LocalRun) -> Outcome | None:
    """Return the outcome of a run that need not be started."""
    if run.is_done():
        return Outcome(run=run, state="done", reason="is done already")
    status = read_status(run.folder)
    if status.state == "running":
        where = f"job {status.job}" if status.job else f"host {status.host}"
        return Outcome(run=run, state="running", reason=f"is running elsewhere ({where}), left to it")
    return None


def _begin(
    begins: Beginner, place: int, title: str, run: LocalRun, num_devices: int, *, mask: str | None, last: bool
) -> _Active:
    """Start the processes of a run."""
    run.log.parent.mkdir(parents=True, exist_ok=True)
    run.log.touch()
    start = run.log.stat().st_size
    processes = begins.begin(run.name, run.arguments, run.log, num_devices, mask, last=last)
    return _Active(place=place, title=title, run=run, mask=mask, processes=processes, console_start=start)


def _pass_on(num_asked: int, active: Sequence[_Active], say: Callable[[str], None]) -> None:
    """Tell the runs to stop: at their next step, then at once, then without being asked."""
    one = len(active) == 1
    runs = "1 run is going to stop at its" if one else f"{len(active)} runs are going to stop at their"
    first = f"{runs} next step; finished rounds are saved; Ctrl-C again stops at once"
    say({1: first, 2: "interrupted at once; Ctrl-C again kills"}.get(num_asked, "killed"))
    for entry in active:
        entry.send(signal.SIGINT if num_asked < 3 else signal.SIGKILL)


def _last_error(log: Path, start: int) -> str:
    """Return the last line of a console from byte `start` that tells how a run ended, or its last line of all."""
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(TOLD)]
    others = [line for line in lines if not line.startswith("lost: ")]  # one process only misses another
    return (told or others or lines or [""])[-1]
