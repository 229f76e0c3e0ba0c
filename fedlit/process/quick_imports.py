"""Imports without the collector of garbage, which would look through every module again and again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports(*, for_good: bool = False) -> Iterator[None]:
    """Keep Python from collecting garbage inside: a sixth of the time that the libraries take.

    They make half a million objects that stay, and no rubbish worth looking for.

    for_good: leave what there is afterwards out of every later collection too, each of which would take half a second.
    For a command, whose process holds nothing else yet: in somebody else's program it would keep their rubbish.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if for_good:
            gc.freeze()
        if collects:
            gc.enable()
