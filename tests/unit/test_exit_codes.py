"""The exit code of a federation for every end that is no bug: programs that start runs depend on these numbers."""

from pathlib import Path

import pytest

from fedlit.commands import endings
from fedlit.commands.endings import run_federation
from fedlit.errors import DivergenceError, LostPeer, OutOfMemory, UserError
from fedlit.process.interrupt import StoppedBySignal, StopReason, TimedOut

ENDS = [
    (UserError("a mistake"), 2, "error: a mistake"),
    (DivergenceError(what="the loss", round_number=1), 3, "diverged: round 1"),
    (OutOfMemory(where="round 1, process 0", reason="20 GiB"), 4, "out of memory: "),
    (TimedOut(job="7", elapsed_s=60.0), 5, "timed out: not one round"),
    (LostPeer(process=0, num_processes=2, reason="reset"), 6, "lost: "),
    (StoppedBySignal(reason=StopReason.SIGTERM, saved_round=None, num_rounds=3, num_rounds_here=0), 75, "stopped: "),
    (KeyboardInterrupt(), 130, "interrupted: "),
    (BrokenPipeError(), 141, ""),
    (OSError(28, "No space left on device", "record"), 2, "error: record cannot be written"),
]


@pytest.mark.parametrize(("end", "code", "said"), ENDS, ids=[type(end).__name__ for end, _, _ in ENDS])
def test_every_end_has_its_code_and_its_line(
    end: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def run(*_given: object, **_options: object) -> None:
        raise end

    monkeypatch.setattr(endings, "run_to_end", run)
    monkeypatch.setattr(endings.StopRequest, "install", lambda _self: None)
    monkeypatch.setattr(endings, "_drop", lambda _stream: None)
    assert run_federation([f"run.dir={tmp_path}"]) == code
    line = capsys.readouterr().err
    assert line.startswith(said)
    assert line.count("\n") == bool(said)
