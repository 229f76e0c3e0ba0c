"""However a run ends while a checkpoint is being written, that round is saved and told as saved, or neither."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_federations import Builder

import fedlit.store.writing
from fedlit.errors import DivergenceError, OutOfMemory, UserError
from fedlit.process.interrupt import StoppedBySignal, StopReason
from fedlit.round.callback import Callback
from fedlit.round.loop import Federation
from fedlit.store.checkpoint import Checkpoints


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Federation:
    """Return a federation whose checkpoints take longer to write than a round takes to train."""
    written = fedlit.store.writing._write_manifest

    def slowly(*arguments: Any) -> None:
        time.sleep(0.5)
        written(*arguments)

    monkeypatch.setattr(fedlit.store.writing, "_write_manifest", slowly)
    return Builder(tmp_path, num_layers=1)("run", "num_rounds=4", "local.steps=1", "eval.every=4", "method=fedsa_lora")


class At(Callback):
    """Does something once a round is done."""

    def __init__(self, round_number: int, action: Callable[[], Any]) -> None:
        self.round_number, self.action = round_number, action

    def on_round_end(self, record: dict[str, Any], samples: Any) -> None:
        if record["round"] == self.round_number:
            self.action()


def newest(federation: Federation) -> str | None:
    """Return the name of the newest checkpoint, as the next start finds it."""
    checkpoints = Checkpoints(folder=federation.checkpoints.folder, keep=2)
    path, notices = checkpoints.newest()
    assert notices == []
    return None if path is None else path.name


@pytest.mark.parametrize("reason", [StopReason.SIGTERM, StopReason.SIGUSR1, StopReason.SIGINT, StopReason.CALLBACK])
def test_a_stop_waits_for_the_round_that_it_tells_of(federation: Federation, reason: StopReason) -> None:
    federation.callbacks = [At(2, lambda: federation.stop.ask(reason))]
    with pytest.raises(StoppedBySignal) as caught:
        federation.run()
    assert caught.value.saved_round == 2
    assert newest(federation) == "round-0002"


def test_a_folder_that_is_lost_is_left_alone(federation: Federation) -> None:
    federation.callbacks = [At(2, lambda: federation.stop.ask(StopReason.FOLDER_LOST))]
    with pytest.raises(StoppedBySignal) as caught:
        federation.run()
    assert newest(federation) == f"round-{caught.value.saved_round:04d}"


def fail() -> None:
    raise LookupError


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("action", "kind"), [(fail, LookupError), (interrupt, KeyboardInterrupt)])
def test_an_error_of_a_callback_loses_no_round(
    federation: Federation, action: Callable[[], None], kind: type[BaseException]
) -> None:
    """A second Ctrl-C may lose one, and never half of it."""
    federation.callbacks = [At(2, action)]
    with pytest.raises(kind):
        federation.run()
    assert newest(federation) in (["round-0002"] if kind is LookupError else ["round-0001", "round-0002"])


def poison(federation: Federation) -> None:
    for tensor in federation.host.travelling().values():
        tensor.data.fill_(float("nan"))
    federation.server = type(federation.server)(
        round_idx=federation.server.round_idx,
        shared={name: torch.full_like(tensor, float("nan")) for name, tensor in federation.server.shared.items()},
        layers=federation.server.layers,
    )


def test_divergence_names_the_round_that_is_there(federation: Federation) -> None:
    federation.callbacks = [At(2, lambda: poison(federation))]
    with pytest.raises(DivergenceError) as caught:
        federation.run()
    assert caught.value.checkpoint_round == 2
    assert newest(federation) == "round-0002"


def test_memory_that_does_not_suffice_names_the_round_that_is_there(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust() -> None:
        monkeypatch.setattr(federation.host, "load_client", lambda *_: (_ for _ in ()).throw(MemoryError()))

    federation.callbacks = [At(2, exhaust)]
    with pytest.raises(OutOfMemory) as caught:
        federation.run()
    assert caught.value.checkpoint_round == 2
    assert newest(federation) == "round-0002"


def test_a_full_disk_ends_the_run_at_the_next_round(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill() -> None:
        federation.checkpoints.settle()
        monkeypatch.setattr(fedlit.store.writing, "_write_manifest", refuse)

    federation.callbacks = [At(1, fill)]
    with pytest.raises(UserError, match="No space left on device"):
        federation.run()
    assert federation.server.round_idx == 3  # it met it when round 3 was to be saved
    assert newest(federation) == "round-0001"


def test_the_end_of_a_run_waits_for_its_last_round(federation: Federation) -> None:
    federation.run()
    assert newest(federation) == "round-0004"
