"""A signal is remembered, not obeyed at once; a second Ctrl-C is."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from fedlit.process.interrupt import STOPPED_EXIT_CODE, OutOfMemory, StopRequest, is_out_of_memory, out_of_memory
from fedlit.round.loop import Federation

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
    assert stop.signal_name is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered(number: signal.Signals, stop: StopRequest) -> None:
    send(number)
    assert stop.signal_name == number.name


def test_the_first_signal_is_the_reason(stop: StopRequest) -> None:
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
        send(number)
    assert stop.signal_name == "SIGUSR1"


def test_a_second_interrupt_is_obeyed_at_once(stop: StopRequest) -> None:
    send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_a_scheduler_may_ask_again(stop: StopRequest) -> None:
    send(signal.SIGINT)
    send(signal.SIGTERM)
    assert stop.signal_name == "SIGINT"


def test_the_exit_code_means_try_again() -> None:
    assert STOPPED_EXIT_CODE == os.EX_TEMPFAIL


def test_nothing_heavy_is_imported_before_the_handler_stands() -> None:
    heavy = "{'torch', 'numpy', 'lightning', 'omegaconf'}"
    code = f"import sys, fedlit.process.interrupt; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_items_end_early_once_a_stop_is_asked_for() -> None:
    stop = StopRequest()
    items = stop.until(range(6))
    assert (list(items), len(items), items[5], list(items[1::2])) == ([0, 1, 2, 3, 4, 5], 6, 5, [1, 3, 5])
    seen = []
    for item in items[1::2]:
        seen.append(item)
        stop.ask("SIGTERM")
    assert (seen, stop.has_skipped) == ([1], True)


def test_nothing_is_left_out_when_the_stop_comes_after_the_last_item() -> None:
    stop = StopRequest()
    for item in stop.until(range(3)):
        stop.ask("SIGTERM") if item == 2 else None
    assert not stop.has_skipped


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
    def train(*_: object) -> None:
        raise error

    federation: Any = SimpleNamespace(
        server=SimpleNamespace(round_idx=4),
        rows=[["a"], ["b"]],
        cohort_size=2,
        config=SimpleNamespace(seed=0),
        exchange=MagicMock(),
        stateful=False,
        clients={},
        stop=StopRequest(),
        trainer=SimpleNamespace(num_steps=lambda num_examples: num_examples, train=train),
        tell=lambda _event: None,
        _on_step=None,
        _agree=lambda work: Federation._agree(federation, work),
    )
    with pytest.raises(raised) as caught:
        Federation._train(federation)
    if raised is OutOfMemory:
        assert str(caught.value).startswith("round 5, process 0: CUDA out of memory.; lower")
        assert str(caught.value).endswith("(the checkpoint after round 4 is intact)")
