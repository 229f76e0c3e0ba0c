"""Runs forked from a parent that has imported everything, with small modules in the place of a federation."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedlit.errors import UserError
from fedlit.process import warm, warm_server
from fedlit.process.warm import Process, WarmParent, can_be_warm, start_cold

REPOSITORY = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")

# What a module sees of its process: everything here must be the same in an interpreter of its own.
SEEN = """
import __main__, atexit, gc, json, os, signal, sys, threading
numbers = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGPIPE", "SIGCHLD")
seen = {
    "argv": sys.argv, "main": __main__.__spec__.name, "name": __name__, "orig_argv": sys.orig_argv[1:],
    "group": os.getpgid(0) == os.getpid(), "parent": os.getppid(), "stdin": sys.stdin.read(),
    "handlers": {name: str(signal.getsignal(getattr(signal, name))) for name in numbers},
    "environment": dict(os.environ), "threads": threading.active_count(), "path": sys.path, "folder": os.getcwd(),
    "descriptors": sorted(os.listdir("/proc/self/fd"))[:-1], "streams": [sys.stdout.encoding, sys.stderr.errors],
    "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering], "collects": gc.isenabled(),
}
atexit.register(print, "at the end")
threading.Timer(0.05, print, ["from a thread"]).start()
print(json.dumps(seen))
print("to stderr", file=sys.stderr)
"""
ENDS = """
import os, signal, sys, time
how = sys.argv[1]
print("here", flush=True)
if how == "code": sys.exit(7)
if how == "text": sys.exit("a reason")
if how == "none": sys.exit()
if how == "error": raise ValueError("a bug")
if how == "crash": os.kill(os.getpid(), signal.SIGSEGV)
if how == "interrupt": raise KeyboardInterrupt
if how == "full": sys.stdout = open("/dev/full", "w"); print("lost")
if how == "wait": time.sleep(60)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "seen.py").write_text(SEEN)
    (tmp_path / "ends.py").write_text(ENDS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
    return tmp_path


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(modules: Path, said: list[str]) -> Iterator[Callable[..., WarmParent]]:
    made = []

    def parent(*names: str, **variables: str) -> WarmParent:
        made.append(WarmParent(names, {**os.environ, **variables}, said.append, start_cold))
        return made[-1]

    yield parent
    for parent_ in made:
        parent_.close()


def wait(process: Process) -> int:
    deadline = time.monotonic() + 60
    while (code := process.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return code


def test_a_forked_process_sees_what_one_of_its_own_does(make: Callable[..., WarmParent], modules: Path) -> None:
    environment = {**os.environ, "ONLY_THIS": "run"}
    parent = make("numpy")
    seen = {}
    for name, starter in {"cold": start_cold, "warm": parent}.items():
        console = modules / f"{name}.txt"
        assert wait(starter(["seen", "key=a b"], environment, console)) == 0
        first, *others = sorted(console.read_text().splitlines(), key=lambda line: not line.startswith("{"))
        assert sorted(others) == ["at the end", "from a thread", "to stderr"]
        seen[name] = json.loads(first)
    assert seen["warm"] == seen["cold"]
    assert seen["warm"]["parent"] == os.getpid()


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("code", 7, ""),
        ("text", 1, "a reason"),
        ("none", 0, ""),
        ("error", 1, "ValueError: a bug"),
        ("crash", -signal.SIGSEGV, ""),
        ("interrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("full", 120, ""),
    ],
)
def test_ends_are_those_of_an_interpreter(
    make: Callable[..., WarmParent], modules: Path, said: list[str], how: str, code: int, told: str
) -> None:
    """And one that ends harms no other."""
    parent = make()
    other = parent(["ends", "wait"], os.environ, modules / "other.txt")
    for name, starter in {"cold": start_cold, "warm": parent}.items():
        console = modules / f"{name}.txt"
        assert wait(starter(["ends", how], os.environ, console)) == code
        text = console.read_text()
        assert text.startswith("here\n")
        assert told in text
        assert "warm_server" not in text, "the traceback is that of another program"
    assert other.poll() is None
    other.send_signal(signal.SIGKILL)
    assert wait(other) == -signal.SIGKILL
    assert said == []


def test_generators_are_not_shared(make: Callable[..., WarmParent], modules: Path) -> None:
    (modules / "draws.py").write_text("import random, numpy; print(random.random(), numpy.random.random())")
    parent = make("random", "numpy.random")
    for name in ("a", "b"):
        assert wait(parent(["draws"], os.environ, modules / name)) == 0
    drawn = [(modules / name).read_text().split() for name in ("a", "b")]
    assert all(one != other for one, other in zip(*drawn, strict=True)), drawn


def test_threads_of_blas_are_gone_before_a_fork(
    make: Callable[..., WarmParent], modules: Path, said: list[str]
) -> None:
    """NumPy's OpenBLAS starts them when it is imported, and again in the child, where they are needed."""
    (modules / "product.py").write_text("import numpy; a = numpy.ones((900, 900)); assert (a @ a == 900).all()")
    parent = make("numpy", "scipy.linalg", OPENBLAS_NUM_THREADS="4", OMP_NUM_THREADS="4")
    assert wait(parent(["product"], {**os.environ, "OPENBLAS_NUM_THREADS": "4"}, modules / "out")) == 0
    assert said == []


def test_a_thread_of_an_import_makes_it_of_no_use(
    make: Callable[..., WarmParent], modules: Path, said: list[str]
) -> None:
    (modules / "starts.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()"
    )
    parent = make("starts")
    assert wait(parent(["ends", "code"], os.environ, modules / "out")) == 7
    assert said == ["the warm parent is of no use (importing has started 1 threads); further runs start cold"]


def test_a_socket_of_an_import_makes_it_of_no_use(
    make: Callable[..., WarmParent], modules: Path, said: list[str]
) -> None:
    (modules / "opens.py").write_text("import socket\nkept = socket.socket()")
    assert wait(make("opens")(["ends", "code"], os.environ, modules / "out")) == 7
    assert "importing has opened socket:" in said[0]


def test_a_device_in_use_makes_it_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torch: a machine with GPUs is not at hand in every test."""
    fake = type("Torch", (), {"cuda": type("Cuda", (), {"is_initialized": staticmethod(lambda: True)})})
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(warm_server, "_num_threads", lambda: 1)
    assert warm_server.why_not() == "importing has initialised CUDA"


def test_without_adoption_it_is_of_no_use(
    make: Callable[..., WarmParent], modules: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "_adopt_orphans", lambda _yes: False)
    assert wait(make()(["ends", "code"], os.environ, modules / "out")) == 7
    assert "does not let a process adopt orphans" in said[0]


def test_an_import_that_fails_is_told_with_its_last_line(
    make: Callable[..., WarmParent], modules: Path, said: list[str]
) -> None:
    (modules / "broken.py").write_text("raise RuntimeError('not today')")
    assert wait(make("broken", "no_such_module")(["ends", "code"], os.environ, modules / "out")) == 7
    assert said == [
        "the warm parent is of no use (it ended with code 1: RuntimeError: not today); further runs start cold"
    ]


def test_its_death_harms_no_run(make: Callable[..., WarmParent], modules: Path, said: list[str]) -> None:
    parent = make()
    running = parent(["ends", "wait"], os.environ, modules / "running")
    while not (modules / "running").exists():
        assert running.poll() is None
        time.sleep(0.01)
    os.kill(parent.pid, signal.SIGKILL)
    later = [parent(["ends", "code"], os.environ, modules / "later") for _ in range(2)]
    assert [wait(each) for each in later] == [7, 7]
    assert said == ["the warm parent is of no use (it ended with code -9); further runs start cold"]
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    assert wait(running) == -signal.SIGTERM


def test_what_is_not_forked_yet_can_be_stopped(make: Callable[..., WarmParent], modules: Path, said: list[str]) -> None:
    (modules / "slow.py").write_text("import time; time.sleep(60)")
    parent = make("slow")
    asked = parent(["ends", "code"], os.environ, modules / "out")
    assert asked.poll() is None
    asked.send_signal(signal.SIGINT)
    assert asked.poll() == 75
    began_s = time.monotonic()
    parent.close()
    assert time.monotonic() - began_s < 5
    assert (said, (modules / "out").exists()) == ([], False)


@pytest.mark.parametrize("moment", ["begins", "imports", "serves"])
def test_it_ends_with_whoever_started_it(modules: Path, moment: str) -> None:
    """SIGKILL leaves a process no time to close anything; its runs go on."""
    pause_s = 0 if moment == "serves" else 60
    (modules / "slow.py").write_text(f"import time, pathlib; pathlib.Path('here').touch(); time.sleep({pause_s})")
    code = f"""
import os, time
from pathlib import Path
from fedlit.process.warm import WarmParent, start_cold
parent = WarmParent(["slow"], os.environ, print, start_cold)
run = parent(["ends", "wait"], os.environ, Path("run.txt"))
while {moment == "imports"} and not Path("here").exists(): pass
while {moment == "serves"} and not run.pid: run.poll()
print(parent.pid, run.pid or 0, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=modules, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        server, run = map(int, starter.stdout.readline().split())
        starter.kill()
        starter.wait()
        deadline = time.monotonic() + 10
        while is_alive(server):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    if run:
        assert is_alive(run)
        os.kill(run, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_limits_of_memory_hold(make: Callable[..., WarmParent], modules: Path) -> None:
    (modules / "limit.py").write_text("import resource; print(resource.getrlimit(resource.RLIMIT_AS)[0])")
    code = """
import os, resource
from pathlib import Path
from fedlit.process.warm import WarmParent, start_cold
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
parent = WarmParent([], os.environ, print, start_cold)
run = parent(["limit"], os.environ, Path("limit.txt"))
while run.poll() is None: pass
parent.close()
"""
    subprocess.run([sys.executable, "-c", code], cwd=modules, check=True)
    assert (modules / "limit.txt").read_text() == f"{2**33}\n"


def test_it_can_be_switched_off() -> None:
    assert can_be_warm({})
    assert can_be_warm({"FEDLIT_WARM": "1"})
    assert not can_be_warm({"FEDLIT_WARM": "0"})


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_system_that_starts_no_process_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_words: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(warm.subprocess, "Popen", refuse)
    for start in (
        lambda: start_cold(["fedlit"], {}, None),
        lambda: WarmParent([], {}, print, start_cold),
    ):
        with pytest.raises(UserError, match=f"cannot be started .{os.strerror(number)}.*--jobs"):
            start()
