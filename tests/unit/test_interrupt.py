"""A signal is remembered, not obeyed at once; a second Ctrl-C is."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fedlit.interrupt import STOPPED_EXIT_CODE, StopRequest

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
    code = (
        "import sys, fedlit.interrupt; print(sorted({'torch', 'numpy', 'lightning', 'omegaconf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
