"""A process with many files open goes on with its warm parent."""

import os
import resource
from typing import Any

import pytest

from fedlit.process.warm import WarmParent


def test_handles_above_those_of_select_do_no_harm() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        pytest.skip(f"the system allows {soft} open files, and select's limit is 1,024")
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    said: list[str] = []
    cold: Any = None
    try:
        parent = WarmParent((), dict(os.environ), said.append, cold)
        try:
            parent._answer(0.1)
        finally:
            parent.close()
    finally:
        for handle in opened:
            os.close(handle)
    assert said == []
