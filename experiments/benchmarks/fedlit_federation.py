"""fedlit's side of federation.py: `fedlit run` as a person starts it, held before each round until its turn comes."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from turns import Turns

PIECES = (
    ("fedlit.round.loop", "Federation", "_train", "train"),
    ("fedlit.round.loop", "Federation", "_aggregate", "aggregate"),
    ("fedlit.round.loop", "Federation", "_finish", "finish"),
    ("fedlit.store.checkpoint", "Checkpoints", "save", "checkpoint"),
    ("fedlit.store.folder", "RunFolder", "append", "record"),
    ("fedlit.client.steps", "LocalSteps", "run", "steps"),
    ("fedlit.round.private_sums", "Release", "encoded", "norms"),
    ("fedlit.round.private_sums", "Release", "add_noise", "noise"),
    ("fedlit.round.private_rounds", "PrivateRounds", "booked", "ledger"),
    ("fedlit.privacy.claim", "Claim", "spent", "accountant"),
    ("fedlit.secure.channel", "MaskedChannel", "before_reduce", "unmasking"),
)
"""Methods whose CPU seconds are told: module, class, method, name. One that is gone is left out."""


def main(words: Sequence[str]) -> None:
    """Run `fedlit run WORDS`; a turn begins where a round does, and ends where the next one begins."""
    turns = Turns()
    spent: Counter[str] = Counter()
    # After the channel is made: fedlit prints.
    from fedlit import cli  # noqa: PLC0415
    from fedlit.round.loop import Federation  # noqa: PLC0415

    for place in PIECES:
        _time(*place, spent)
    begin = Federation._stop_if_asked  # what a round does first, and once

    def at_its_turn(federation: Federation) -> None:
        turns.next(spent)
        spent.clear()
        begin(federation)

    Federation._stop_if_asked = at_its_turn  # type: ignore[method-assign]
    raise SystemExit(cli.main(["run", *words]))


def _time(module: str, owner: str, method: str, name: str, spent: "Counter[str]") -> None:
    """Add up the CPU seconds of a method under a name."""
    from importlib import import_module  # noqa: PLC0415

    found = getattr(import_module(module), owner, None)
    inner: Callable[..., Any] | None = getattr(found, method, None)
    if inner is None:
        return

    @functools.wraps(inner)
    def timed(*given: Any, **named: Any) -> Any:
        began_s = time.process_time()
        try:
            return inner(*given, **named)
        finally:
            spent[name] += time.process_time() - began_s  # type: ignore[assignment]

    setattr(found, method, timed)
