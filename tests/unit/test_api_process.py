"""The process of a caller is lent for a run and given back as it was; what the caller has set changes no bit."""

import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from api_runs import same_tensors, small_run, timeless
from torch import distributed

import fedlit
from fedlit.process.interrupt import StopReason

TESTS = Path(__file__).parents[1]
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> fedlit.Result:
    return small_run(tmp_path_factory.mktemp("runs"))


def fingerprint() -> dict[str, Any]:
    """Return what a run could leave changed."""
    torch_state = torch.random.get_rng_state()
    return {
        "environ": dict(os.environ),
        "handlers": [signal.getsignal(number) for number in SIGNALS],
        "filters": list(warnings.filters),
        "levels": {name: logging.getLogger(name).level for name in ("", "lightning.fabric", "transformers", "fedlit")},
        "python": random.getstate(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "torch": torch_state.tolist(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "progress": transformers.utils.logging.is_progress_bar_enabled(),
        "group": distributed.is_initialized(),
        "threads_alive": {thread.name for thread in threading.enumerate()},
    }


@pytest.fixture
def odd_caller(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set whatever a caller may have set."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    threads, level = torch.get_num_threads(), logging.getLogger("lightning.fabric").level
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    logging.getLogger("lightning.fabric").setLevel(logging.DEBUG)
    transformers.utils.logging.enable_progress_bar()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(False)
    logging.getLogger("lightning.fabric").setLevel(level)


def test_the_process_is_as_before_and_its_settings_change_no_bit(
    tmp_path: Path, plain: fedlit.Result, odd_caller: None
) -> None:
    before = fingerprint()
    result = small_run(tmp_path)
    assert fingerprint() == before
    assert same_tensors(result, plain)
    assert timeless(result) == timeless(plain)


def test_the_process_is_as_before_when_a_run_fails(tmp_path: Path) -> None:
    before = fingerprint()
    with pytest.raises(fedlit.DivergenceError):
        small_run(tmp_path, local={"lr": 1e30})
    assert fingerprint() == before
    assert fedlit.load_result(tmp_path / "run").status == "diverged"


def test_nothing_is_printed_unless_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = small_run(tmp_path, "quiet", logging={"wandb": "disabled", "tags": ["x"]})
    assert capfd.readouterr() == ("", "")
    assert result.notices == ("logging.tags=[x] has no effect with logging.wandb=disabled",)
    small_run(tmp_path, "loud", logging={"wandb": "disabled", "tags": ["x"]}, quiet=False)
    out, err = capfd.readouterr()
    assert "round   2" in out
    assert err == "warning: logging.tags=[x] has no effect with logging.wandb=disabled\n"


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
{before}
from pathlib import Path
from api_runs import small_run
{call}
print(json.dumps({{name: tensor.double().sum().item().hex() for name, tensor in result.server.shared.items()}}))
"""


def in_a_process(call: str, before: str = "") -> dict[str, str]:
    """Return the sums of the server's tensors of a run in a process of its own, which prints nothing else."""
    code = SCRIPT.format(tests=str(TESTS), call=call, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    content: dict[str, str] = json.loads(done.stdout)
    return content


def sums(result: fedlit.Result) -> dict[str, str]:
    return {name: tensor.double().sum().item().hex() for name, tensor in result.server.shared.items()}


def test_two_runs_in_a_process_are_those_of_two_processes(tmp_path: Path, plain: fedlit.Result) -> None:
    """The first process is a fresh one that prints nothing at all; the other pretends to be a notebook, where Fabric
    launches no processes.
    """
    other = {"method": "fedsvd", "seed": 3}
    second = small_run(tmp_path, "second", config=other)
    fresh = f"result = small_run(Path({str(tmp_path)!r}), 'fresh', config={other!r})"
    assert in_a_process(fresh) == sums(second)
    notebook = f"result = small_run(Path({str(tmp_path)!r}), 'notebook')"
    assert in_a_process(notebook, before="sys.ps1 = 'In : '") == sums(plain)


def test_it_runs_under_an_event_loop_and_in_a_thread(tmp_path: Path, plain: fedlit.Result) -> None:
    async def main() -> fedlit.Result:
        return small_run(tmp_path, "loop")

    assert same_tensors(asyncio.run(main()), plain)
    found: list[fedlit.Result] = []
    handlers = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=lambda: found.append(small_run(tmp_path, "thread")))
    thread.start()
    thread.join()
    assert same_tensors(found[0], plain)
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


class Hears(fedlit.Callback):
    """Writes down what it hears, and does something at one of the events."""

    def __init__(self, at: str = "", action: Callable[[], None] = lambda: None) -> None:
        self.heard: list[str] = []
        self._at, self._action = at, action

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if what == self._at:
            self._action()

    def on_start(self, summary: Any, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        self._hear(f"start {len(records)}")

    def on_round_start(self, round_number: int, num_steps: int) -> None:
        self._hear(f"begin {round_number}")

    def on_step(self) -> None:
        self._hear("step")

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Any]) -> None:
        self._hear(f"round {record['round']}")

    def on_end(self, records: Sequence[dict[str, Any]]) -> None:
        self._hear(f"end {len(records)}")

    def close(self) -> None:
        self._hear("close")


def stop() -> None:
    raise fedlit.Stop


def test_a_callback_hears_all_and_a_done_run_is_not_trained_again(tmp_path: Path, plain: fedlit.Result) -> None:
    first, second = Hears(), Hears()
    result = small_run(tmp_path, callbacks=[first])
    steps = ["step"] * 4
    assert first.heard == [
        *("start 0", "round 0", "begin 1", *steps, "round 1"),
        *("begin 2", *steps, "round 2", "end 3", "close"),
    ]
    again = small_run(tmp_path, callbacks=[second])
    assert second.heard == ["start 3", "end 3", "close"]
    assert same_tensors(result, again)
    assert again.records == result.records
    assert same_tensors(result, plain)


@pytest.mark.parametrize("how", ["Stop", "Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize(("at", "num_records"), [("begin 2", 2), ("round 1", 2), ("start 0", 0)])
def test_a_run_that_is_asked_to_stop_goes_on_to_the_same_bits(
    tmp_path: Path, plain: fedlit.Result, how: str, at: str, num_records: int
) -> None:
    if how == "SIGTERM" and at != "round 1":
        pytest.skip("one place will do")
    actions = {
        "Stop": stop,
        "Ctrl-C": lambda: os.kill(os.getpid(), signal.SIGINT),
        "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    }
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(fedlit.Stopped) as caught:
        small_run(tmp_path, callbacks=[Hears(at, actions[how])])
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert isinstance(caught.value, fedlit.FedlitError)
    reason = {"Stop": StopReason.CALLBACK, "Ctrl-C": StopReason.SIGINT, "SIGTERM": StopReason.SIGTERM}[how]
    assert str(caught.value).startswith(str(reason))
    assert caught.value.folder is not None
    there = fedlit.load_result(caught.value.folder)
    assert (there.status, len(there.records)) == ("stopped", num_records)
    if num_records:
        assert there.server.round_idx == num_records - 1
    done = small_run(tmp_path)
    assert done.status == "done"
    assert same_tensors(done, plain)
    assert timeless(done) == timeless(plain)


def test_a_second_interrupt_is_pythons_own(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        small_run(tmp_path, callbacks=[Hears("begin 2", twice)])
    assert fedlit.load_result(tmp_path / "run").status == "stopped"
    assert not distributed.is_initialized()


class Mishap(Exception):
    """A caller's own."""


def test_an_exception_of_a_callback_comes_out_and_ends_the_run_cleanly(tmp_path: Path, plain: fedlit.Result) -> None:
    def fail() -> None:
        raise Mishap("no more")

    before = fingerprint()
    later = Hears()
    with pytest.raises(Mishap, match="no more"):
        small_run(tmp_path, callbacks=[Hears("round 1", fail), later])
    assert fingerprint() == before
    assert later.heard[-1] == "close"
    there = fedlit.load_result(tmp_path / "run")
    assert (there.status, len(there.records)) == ("failed", 2)
    assert "Mishap: no more" in (tmp_path / "run" / "status.json").read_text()
    assert same_tensors(small_run(tmp_path), plain)


def test_one_at_a_time(tmp_path: Path) -> None:
    def another() -> None:
        small_run(tmp_path, "inner")

    with pytest.raises(fedlit.UserError, match=r"another fedlit\.run is under way in this process"):
        small_run(tmp_path, "outer", callbacks=[Hears("round 0", another)])
    assert not (tmp_path / "inner").exists()


def test_a_process_group_of_the_callers_is_left_alone(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(fedlit.UserError, match=r"torch\.distributed is initialised in this process"):
            small_run(tmp_path)
        assert distributed.is_initialized()
    finally:
        distributed.destroy_process_group()


def test_a_notebook_without_widgets_prints_nothing() -> None:
    """tqdm warns there when it is first imported, long before the run."""
    code = (
        "import sys, types\n"
        "sys.modules['ipykernel.zmqshell'] = types.ModuleType('ipykernel.zmqshell')\n"
        "shell = types.ModuleType('IPython')\n"
        "shell.get_ipython = lambda: None\n"
        "sys.modules['IPython'] = shell\n"
        "sys.modules['ipywidgets'] = None\n"
        "from fedlit import api\n"
        "api._quiet_bars()\n"
        "import tqdm.auto\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
