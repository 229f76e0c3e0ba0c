"""Word of rows that leave a batch in the middle of decoding, for whoever keeps account of whose rows they are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

Hear = Callable[[Sequence[int] | None, int], None]
"""Called with the places of the rows that stay, and how many there were; with None when a batch begins or is done."""

_LISTENER: ContextVar[Hear | None] = ContextVar("rows_left", default=None)


@contextmanager
def listening(hear: Hear) -> Iterator[None]:
    """Let `hear` be told within the block."""
    token = _LISTENER.set(hear)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell_rows_left(kept: Sequence[int] | None, num_before: int) -> None:
    """Tell that of `num_before` rows those at the places `kept` stay; None: that all are there again."""
    hear = _LISTENER.get()
    if hear is not None:
        hear(kept, num_before)
