"""Stands before the words that the job scripts give to python: notes what it sees, and imports no torch.

`mode=sleep` ends by itself, `mode=fail` fails in process 1, the others wait for a signal: `mode=wait` ends then,
`mode=requeue` puts its job back into the queue. A job that was put back ends at once.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

from fedlit.process import slurm

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


def main(arguments: list[str]) -> int:
    mode = next((word.removeprefix("mode=") for word in arguments if word.startswith("mode=")), "sleep")
    signals: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        note("signal", name=signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, handle)
    parent = Path(f"/proc/{os.getppid()}/comm").read_text().strip()
    with socket.socket() as listener:
        # As Fabric does: process 0 of every job of a node listens on a port made of the job's number.
        if PROCESS == "0":
            listener.bind(("127.0.0.1", 15000 + int(os.environ["SLURM_JOB_ID"][-4:])))
        note("start", arguments=arguments, parent=parent, environment=dict(os.environ))
        if RESTARTS or mode == "sleep":
            time.sleep(0.5)
            code = 0
        elif mode == "fail" and PROCESS == "1":
            code = FAILED
        else:
            code = STOPPED
            while not signals:
                time.sleep(0.02)
            if mode == "requeue" and signals == [signal.SIGUSR1]:
                if PROCESS == "0":
                    note("requeue", problem=slurm.requeue(os.environ))
                while signal.SIGTERM not in signals:  # an earlier end would end process 0 too
                    time.sleep(0.02)
    note("end", code=code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
