"""Holds the package imported and gives every case a forked process of its own, within milliseconds.

It imports and watches itself as fedlit.process.warm_server does, but runs any script, with a time limit and a memory
limit, and starts it as Python starts `__main__`, so that what stands below `if __name__` counts. A case cannot harm the
next: it has its own process.

Requests and answers are JSON, one a line:
    {"script": path, "words": [...], "folder": path, "stdout": one of cases.STDOUTS}
        ->  {"code": exit code, or minus a signal's number, "stderr": text, "seconds": number}
"""

import errno
import gc
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TIME_LIMIT_S = 60
MEMORY_LIMIT_BYTES = 6 * 2**30
"""Of addresses beyond those of the server itself."""
PROCESS_LIMIT = 40
"""Processes that a case may start: as many as a comparison of all methods needs."""


def serve() -> None:
    """Answer requests until stdin ends."""
    os.environ |= {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    import torch  # noqa: PLC0415  its threads are set first

    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE.parent / "e2e"))
    from fedlit.config import load_config  # noqa: PLC0415
    from fedlit.lab.sweeps import starting  # noqa: PLC0415
    from fedlit.process import warm_server  # noqa: PLC0415

    warm_server.import_all((*starting.EVERY_RUN, "galore_torch", "quick_runs"))
    load_config([])  # the group files are parsed once
    starting.COMMAND = ("refusing_federate",)
    sys.path.insert(0, str(HERE))
    os.environ |= {"FEDLIT_WARM": "0", "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    warm_server.shed_threads()
    assert not (reason := warm_server.why_not()), reason
    gc.collect()
    gc.freeze()
    answer: Any = {"ready": os.getpid()}
    while True:
        print(json.dumps(answer), flush=True)
        line = sys.stdin.readline()
        if not line:
            break
        answer = run(json.loads(line))


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run one case to its end."""
    stderr = Path(request["folder"]).with_suffix(".stderr")
    started_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(request, stderr)
    _, status = os.waitpid(pid, 0)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what the case started and left behind
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stderr": stderr.read_bytes().decode("utf-8", "backslashreplace"),
        "seconds": time.monotonic() - started_s,
    }


def child(request: dict[str, Any], stderr: Path) -> None:
    """Become the script; never returns."""
    code = 1
    try:
        os.setsid()
        set_limits()
        subprocess.Popen = LimitedPopen  # type: ignore[assignment, misc]
        set_streams(request["stdout"], stderr)
        os.chdir(request["folder"])
        sys.argv = [request["script"], *request["words"]]
        code = exit_code(request["script"])
    except BaseException:
        traceback.print_exc()
    finally:
        code = flushed(code)
        os._exit(code)


class LimitedPopen(subprocess.Popen[Any]):
    """Stands for subprocess.Popen in a case: a number of devices with many digits must not fill the machine."""

    num_started = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        LimitedPopen.num_started += 1
        if LimitedPopen.num_started > PROCESS_LIMIT:
            raise BlockingIOError(errno.EAGAIN, f"the fuzzer lets a case start {PROCESS_LIMIT} processes")
        super().__init__(*arguments, **options)


def set_limits() -> None:
    """Limit time and memory: SIGALRM ends the process, memory that is asked for in vain is MemoryError."""
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    limit = pages * resource.getpagesize() + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def set_streams(stdout: str, stderr: Path) -> None:
    """Open the three streams as Python does in a UTF-8 locale."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    reader, writer = os.pipe()
    os.close(reader)
    paths = {"file": os.devnull, "full": "/dev/full"}
    out = writer if stdout == "closed" else os.open(paths[stdout], os.O_WRONLY)
    for number, descriptor in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out)):
        os.dup2(descriptor, number)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115


def exit_code(script: str) -> int:
    """Run the script as `__main__` and return what its process would end with."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        sys.stderr.write(f"{ended.code}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def flushed(code: int) -> int:
    """Flush both streams as the interpreter does at its end, which tells of an error there and ends with 120."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"Exception ignored in: <stdout>\n{type(error).__name__}: {error}\n")
        code = 120
    sys.stderr.flush()
    return code & 0xFF


if __name__ == "__main__":
    serve()
