"""A process that has imported what runs use, and forks one for each request: `python -m fedlit.process.warm_server`.

What differs between a fresh interpreter and a forked one is put back in `_become`, or cannot matter:

| what | here |
|---|---|
| threads | a lock that another thread holds stays locked for ever: the server does not serve if it has a second one |
| devices | a CUDA context does not survive a fork: the server does not serve once it has one |
| console, signals, process group, environment | those of the request; what imports wrote into the environment stays |
| generators | Python's seeds itself anew after a fork, NumPy's is seeded anew, torch's has its fixed first state |
| hash seed | one for all runs of the server: no result may depend on it; PYTHONHASHSEED holds for both |
| `__main__`, `sys.argv` | set by runpy, as `python -m` does: Lightning starts further processes by them |
| the end | threads are waited for, exit functions run, streams are flushed, as the interpreter does |
| malloc | its settings are made by a run itself; freed memory of imports is there to be used |

Words: the number of the process that starts it, then names of modules to import, a package with `.*` behind it with all
that is in it. Requests and answers are JSON, one a line, on stdin and stdout; `streams` are two descriptors that stand
for a console of null:
    {"words": [module, arguments ...], "environment": {...}, "console": file or null, "streams": [number, number]}
        ->  {"pid": number} or {"error": text}
The first answer is {"ready": number of its process} or {"error": why it cannot serve}. A forked process is a child of
whoever started the server, as far as that one adopts orphans (PR_SET_CHILD_SUBREAPER). The server ends with its stdin.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import stat
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1

FLUSH_FAILED_EXIT_CODE = 120
"""The interpreter's own where stdout cannot be flushed at the end."""


def serve(modules: Sequence[str]) -> int:
    """Answer requests until stdin ends."""
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)  # what an import prints is no answer

    def answer(**content: object) -> None:
        os.write(answers, json.dumps(content).encode() + b"\n")

    before = dict(os.environ)
    gc.disable()  # libraries make half a million objects that stay, and no rubbish worth looking for
    import_all(modules)
    changed = {name: text for name, text in os.environ.items() if before.get(name) != text}
    shed_threads()
    if reason := why_not():
        answer(error=reason)
        return 1
    gc.collect()
    gc.freeze()  # a collection in a child would write to every page
    gc.enable()
    answer(ready=os.getpid())
    for line in requests:
        request = json.loads(line)
        request["environment"] = {**request["environment"], **changed}
        try:
            answer(pid=_fork(request, (requests.fileno(), answers)))
        except OSError as error:
            answer(error=str(error))
    return 0


def import_all(names: Sequence[str]) -> None:
    """Import modules, and all of a package for `package.*`; what is not installed is left to the run that needs it."""
    for name in names:
        with suppress(ImportError):
            if not name.endswith(".*"):
                importlib.import_module(name)
                continue
            package = importlib.import_module(name.removesuffix(".*"))
            for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if found.name.rpartition(".")[2] not in ("__main__", "warm_server"):
                    with suppress(ImportError):
                        importlib.import_module(found.name)


def shed_threads() -> None:
    """End the threads that OpenBLAS starts when NumPy and SciPy are imported: it does so before each fork, and starts
    them again where they are needed.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def why_not() -> str:
    """Return why this process must not be forked, nothing if it may."""
    if (num_threads := _num_threads()) > 1:
        return f"importing has started {num_threads - 1} threads"
    opened = [(path, _link(path)) for path in Path("/proc/self/fd").iterdir()]
    # NVML, which counts devices, opens nvidiactl and the devices; a CUDA context opens nvidia-uvm.
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or any(to == "/dev/nvidia-uvm" for _, to in opened):
        return "importing has initialised CUDA"
    for path, to in opened:
        with suppress(OSError):
            if stat.S_ISSOCK(path.stat().st_mode):
                return f"importing has opened {to}"
    return ""


def _num_threads() -> int:
    """Return the threads of this process, those that Python does not know of included."""
    return len(list(Path("/proc/self/task").iterdir()))


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _fork(request: Mapping[str, Any], own: Sequence[int]) -> int:
    """Fork a process for a request and return its number; it is an orphan, which the server's starter adopts.

    own: the server's descriptors, which it must not hold: their ends are how others see that the server is gone.

    Raises:
        OSError: no process could be made.
    """
    reader, writer = os.pipe()
    gate, gate_writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        code = 1
        try:
            pid = os.fork()
            if pid == 0:
                for number in (reader, writer, gate_writer, *own):
                    os.close(number)
                os.read(gate, 1)  # ends when the process between is gone: its parent is from now on the starter
                os.close(gate)
                _become(request)
            os.write(writer, str(pid).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    try:
        text = os.read(reader, 32)
    finally:
        os.waitpid(middle, 0)
        for number in (reader, gate, gate_writer):
            os.close(number)
    if not text:
        raise OSError("no process could be forked")
    return int(text)


def _become(request: Mapping[str, Any]) -> NoReturn:
    """Be what `python -m words` would be; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        streams = list(request["streams"])
        if request["console"] is not None:
            streams[:0] = [os.open(request["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)] * 2
        for standard, number in enumerate(streams[:2], start=1):
            os.dup2(number, standard)
        for number in set(streams):
            os.close(number)
        _reset(request["environment"])
        code = _run(request["words"])
        code = _finish(code)
    except BaseException:
        with suppress(BaseException):
            sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _reset(environment: Mapping[str, str]) -> None:
    """Put back what a fresh interpreter has otherwise."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    if generators := sys.modules.get("numpy.random"):
        generators.seed()
    if ranks := sys.modules.get("lightning_utilities.core.rank_zero"):
        # Read from the environment when Lightning is imported; which process of a run speaks until its group is formed.
        rank = next((environment[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in environment), "0")
        ranks.rank_zero_only.rank = int(rank) if rank.isdecimal() else 0
    importlib.invalidate_caches()


def _run(words: Sequence[str]) -> int:
    """Return the exit code of `python -m words`."""
    sys.argv = ["-m", *words[1:]]
    sys.orig_argv = [sys.executable, "-m", *words]
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        sys.stderr.write(f"{ended.code}\n")
        return 1
    except KeyboardInterrupt as error:
        _show(error)
        _finish(1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the interpreter ends by the signal, so that a shell sees it
        os.kill(os.getpid(), signal.SIGINT)
        return 1
    except BaseException as error:
        _show(error)
        return 1
    return 0


def _show(error: BaseException) -> None:
    shown = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
    sys.excepthook(type(error), shown, shown.__traceback__)


def _finish(code: int) -> int:
    """Do what the interpreter does at its end and return the exit code."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream, failed in ((sys.stdout, FLUSH_FAILED_EXIT_CODE), (sys.stderr, code)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = failed
    return code & 0xFF


def main() -> int:
    """Serve, and end with the process that started this one."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    starter, *modules = sys.argv[1:]
    return serve(modules) if os.getppid() == int(starter) else 1  # it may have ended before the line above


if __name__ == "__main__":
    sys.exit(main())
