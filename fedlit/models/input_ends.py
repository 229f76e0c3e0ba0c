"""Word of where the input of each row ends in a forward pass that goes over its answer too.

A model that looks at an instance as a whole must not look at what it is to say. Generation needs no word: there the
last token is the input's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_ENDS: ContextVar[tuple[int, ...] | None] = ContextVar("input_ends", default=None)


@contextmanager
def telling_input_ends(ends: Sequence[int]) -> Iterator[None]:
    """Let the last places of the rows' inputs be known within the block; none of an empty sequence."""
    token = _ENDS.set(tuple(ends) or None)
    try:
        yield
    finally:
        _ENDS.reset(token)


def input_ends() -> tuple[int, ...] | None:
    """Return the last place of each row's input; None where nobody has told."""
    return _ENDS.get()
