"""A process that has imported everything and forks a federation's processes on demand.

Importing torch, Lightning and transformers takes ten times as long as a small federation. The zygote pays for it once;
every process of a run is forked from it, with an environment as torchrun would make it, and runs the script's own
main(). At the time of a fork the zygote has one thread and has used no device: gloo and autograd start theirs in the
child.

Requests and answers are JSON, one a line, on stdin and stdout:
    {"start": [script's arguments], "environment": {...}, "output": file for stdout and stderr}  ->  {"pid": number}
    {"poll": [pids]}  ->  [exit code, minus the signal's number, or null while it runs]
When stdin ends, so does the zygote, and every process that it still has.
"""

import gc
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "federate.py"
# Imported by libraries at their first use.
LATE_IMPORTS = ("galore_torch", "nltk.stem.porter", "peft.tuners.lora", "torch.distributed")


def script() -> ModuleType:
    """Return experiments/federate.py as a module."""
    spec = importlib.util.spec_from_file_location("federate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare() -> None:
    """Import the whole package and what its libraries leave for later, and let them fill their caches.

    A run's pictures are left out: other tests look at them, and they would take a third of a small run's time.
    """
    import fedlit  # noqa: PLC0415  torch's threads are set first, here and below

    for found in pkgutil.walk_packages(fedlit.__path__, "fedlit."):
        importlib.import_module(found.name)
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    from fedlit import launch  # noqa: PLC0415
    from fedlit.config import ModelConfig  # noqa: PLC0415
    from fedlit.lab.callbacks import Callback  # noqa: PLC0415
    from fedlit.models import load_backbone  # noqa: PLC0415

    launch.quieten()  # a progress bar would leave a thread behind
    launch.RunPlots = lambda _folder: Callback()  # type: ignore[assignment, attr-defined, return-value]
    # transformers compiles a thousand patterns for every model it loads, twice as many as `re` remembers.
    re._MAXCACHE = 2**20  # type: ignore[attr-defined]
    load_backbone(ModelConfig())
    gc.collect()
    gc.freeze()


def num_threads() -> int:
    """Return the threads of this process, those that Python does not know of included."""
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1  # noqa: PTH208  names only


def child(main: Callable[[list[str]], int], arguments: list[str], environment: dict[str, str], output: str) -> None:
    """Become a process of a run; never returns."""
    code = 1
    try:
        with open(os.devnull) as nothing, open(output, "a", buffering=1) as file:  # noqa: PTH123  for their descriptors
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        os.environ.update(environment)
        code = main(arguments)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def poll(pid: int, ended: dict[int, int]) -> int | None:
    """Return the exit code of a child, None while it runs."""
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended.get(pid)


def serve() -> None:
    """Answer requests until stdin ends."""
    # pyarrow's allocator would start a thread of its own.
    os.environ |= {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    prepare()
    main = script().main
    assert num_threads() == 1, f"{num_threads()} threads: a lock that one of them holds would stay locked in a child"
    started: list[int] = []
    ended: dict[int, int] = {}
    answer: Any = {"ready": os.getpid()}
    while True:
        print(json.dumps(answer), flush=True)
        line = sys.stdin.readline()
        if not line:
            break
        request = json.loads(line)
        if "poll" in request:
            answer = [poll(pid, ended) for pid in request["poll"]]
        else:
            pid = os.fork()
            if pid == 0:
                child(main, request["start"], request["environment"], request["output"])
            started.append(pid)
            answer = {"pid": pid}
    for pid in started:
        if poll(pid, ended) is None:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
