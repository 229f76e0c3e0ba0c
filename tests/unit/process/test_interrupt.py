"""A signal is remembered, not obeyed at once; a second Ctrl-C is."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedlit.config import RunConfig
from fedlit.errors import OutOfMemory
from fedlit.methods import build_method
from fedlit.process.interrupt import (
    STOPPED_EXIT_CODE,
    StopAsked,
    StoppedBySignal,
    StopReason,
    StopRequest,
    is_out_of_memory,
    out_of_memory,
)
from fedlit.round.jobs import ClientJob, ClientResult, Trainer
from fedlit.round.loop import Federation
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    request = StopRequest()
    request.install()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_nothing_was_asked_for(stop: StopRequest) -> None:
    assert stop.reason is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered(number: signal.Signals, stop: StopRequest) -> None:
    send(number)
    assert stop.reason is StopReason[number.name]


def test_the_first_signal_is_the_reason(stop: StopRequest) -> None:
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
        send(number)
    assert stop.reason is StopReason.SIGUSR1


def test_a_second_interrupt_is_obeyed_at_once(stop: StopRequest) -> None:
    send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_a_scheduler_may_ask_again(stop: StopRequest) -> None:
    send(signal.SIGINT)
    send(signal.SIGTERM)
    assert stop.reason is StopReason.SIGINT


def test_the_exit_code_means_try_again() -> None:
    assert STOPPED_EXIT_CODE == os.EX_TEMPFAIL


def test_nothing_heavy_is_imported_before_the_handler_stands() -> None:
    heavy = "{'torch', 'numpy', 'lightning', 'omegaconf'}"
    code = f"import sys, fedlit.process.interrupt; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_loop_that_ends_early_says_so() -> None:
    stop = StopRequest()
    assert list(stop.watch(range(3))) == [0, 1, 2]
    seen = []
    with pytest.raises(StopAsked) as caught:
        for item in stop.watch(range(6)):
            seen.append(item)
            stop.ask(StopReason.SIGTERM)
    assert (seen, caught.value.reason) == ([0], StopReason.SIGTERM)


def test_nothing_is_left_out_when_the_stop_comes_after_the_last_item() -> None:
    stop = StopRequest()
    for item in stop.watch(range(3)):
        stop.ask(StopReason.SIGTERM) if item == 2 else None
    with pytest.raises(StopAsked):
        stop.check()


@pytest.mark.parametrize(
    ("saved_round", "how_far"),
    [
        (None, "SIGUSR1 before the first round's end"),
        (0, "SIGUSR1 before the first round's end"),
        (2, "SIGUSR1 after round 2 of 4, which is saved"),
    ],
)
def test_how_a_stopped_run_is_told(saved_round: int | None, how_far: str) -> None:
    stopped = StoppedBySignal(reason=StopReason.SIGUSR1, saved_round=saved_round, num_rounds=4, num_rounds_here=1)
    assert (stopped.how_far, str(stopped)) == (how_far, f"{how_far}; the same command goes on")
    again = pickle.loads(pickle.dumps(stopped.with_then("job 7; it goes on")))
    assert str(again) == f"{how_far}; job 7; it goes on"
    assert (again.reason, again.saved_round, again.num_rounds, again.num_rounds_here) == (
        StopReason.SIGUSR1,
        saved_round,
        4,
        1,
    )
    lost = StoppedBySignal(reason=StopReason.FOLDER_LOST, saved_round=1, num_rounds=4, num_rounds_here=1)
    assert str(lost).startswith("the loss of the folder to another run after round 1 of 4")
    assert pickle.loads(pickle.dumps(StopAsked(StopReason.SIGINT))).reason is StopReason.SIGINT


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has a total capacity"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_does_not_suffice(error: Exception, told: bool) -> None:
    assert is_out_of_memory(error) is told
    line = str(out_of_memory(error, "round 1, process 0"))
    assert line.startswith("round 1, process 0: ")
    assert "lower local.batch_size" in line
    assert "\n" not in line


def test_torch_says_it_that_way() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.float64)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(torch.OutOfMemoryError("CUDA out of memory."), OutOfMemory), (RuntimeError("a bug"), RuntimeError)],
)
def test_a_round_that_does_not_fit_ends_the_run(error: Exception, raised: type[Exception]) -> None:
    class Failing(Trainer):
        def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
            for _ in jobs:
                raise error
            yield from ()

        def num_steps(self, num_examples: int) -> int:
            return num_examples

    plan = RoundPlan(
        round_idx=4, invited=(0, 1), arriving=(0, 1), weights={0: 0.5, 1: 0.5}, trains=frozenset({"weight"})
    )
    federation: Any = SimpleNamespace(
        server=ServerState(round_idx=4, shared={"weight": torch.zeros(2)}),
        rows=[["a"], ["b"]],
        config=RunConfig(),
        clients=None,
        host=SimpleNamespace(method=build_method(RunConfig())),
        observers=[],
        privacy=SimpleNamespace(release=lambda plan, server: None, channel=lambda plan: None),
        checkpoints=SimpleNamespace(saved_round=4, intact_round=lambda: 4),
        trainer=Failing(),
        tell=lambda _event: None,
        _agree=lambda work: Federation._agree(federation, work),
        _job=lambda client_id, plan: Federation._job(federation, client_id, plan),
    )
    with pytest.raises(raised) as caught:
        Federation._train(federation, plan)
    if raised is OutOfMemory:
        assert str(caught.value).startswith("round 5, process 0: CUDA out of memory.; lower")
        assert str(caught.value).endswith("(the checkpoint after round 4 is intact)")
