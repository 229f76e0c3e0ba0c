"""Stands before the words that the job scripts give to python: notes what it sees, and imports no torch.

`mode=sleep` ends by itself, `mode=fail` fails in process 1, the others wait for a signal: `mode=wait` ends then,
`mode=requeue` puts its job back into the queue. A job that was put back ends at once.
"""

import signal
from types import FrameType

signals: list[int] = []
noted = 0


def handle(number: int, _frame: FrameType | None) -> None:
    signals.append(number)


# Before any other import: SLURM may give a warning up to a minute early, and so in the moment in which a job of one
# minute begins. Without a handler it would end the process.
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, handle)

import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from fedlit.process import slurm  # noqa: E402

FAILED = 1
STOPPED = 75
PROCESS = os.environ.get("SLURM_PROCID", "none")
RESTARTS = slurm.restart_count(os.environ)


def note(event: str, **facts: object) -> None:
    """Append a line to this process's own file."""
    path = Path("events") / f"{os.environ['SLURM_JOB_ID']}-{RESTARTS}-{PROCESS}.jsonl"
    line = {"event": event, "time_s": time.time(), "job": slurm.job_id(os.environ), "process": PROCESS, **facts}
    with path.open("a") as file:
        file.write(json.dumps({**line, "restarts": RESTARTS}) + "\n")


def note_signals() -> None:
    """Note the signals that came since the last time."""
    global noted  # noqa: PLW0603
    for number in signals[noted:]:
        noted += 1
        note("signal", name=signal.Signals(number).name)


def pause(duration_s: float) -> None:
    time.sleep(duration_s)
    note_signals()


def main(arguments: list[str]) -> int:
    mode = next((word.removeprefix("mode=") for word in arguments if word.startswith("mode=")), "sleep")
    parent = Path(f"/proc/{os.getppid()}/comm").read_text().strip()
    with socket.socket() as listener:
        # As Fabric does: process 0 of every job of a node listens on a port made of the job's number.
        if PROCESS == "0":
            listener.bind(("127.0.0.1", 15000 + int(os.environ["SLURM_JOB_ID"][-4:])))
        note("start", arguments=arguments, parent=parent, environment=dict(os.environ))
        if RESTARTS or mode == "sleep":
            pause(0.5)
            code = 0
        elif mode == "fail" and PROCESS == "1":
            code = FAILED
        else:
            code = STOPPED
            while not signals:
                pause(0.02)
            if mode == "requeue" and signals == [signal.SIGUSR1]:
                if PROCESS == "0":
                    note("requeue", problem=slurm.requeue(os.environ))
                while signal.SIGTERM not in signals:  # an earlier end would end process 0 too
                    pause(0.02)
    note_signals()
    note("end", code=code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
