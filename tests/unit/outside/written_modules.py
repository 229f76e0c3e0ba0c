"""What every module that a test writes begins with."""

from collections.abc import Callable
from pathlib import Path

WriteModule = Callable[[str, str], Path]

HEAD = """\
from dataclasses import dataclass, field
from typing import Any, ClassVar
from fedlit.plugins import *
"""
RULE = """
@register("rule", "mine")
@dataclass(frozen=True, kw_only=True)
class Mine(AggregationRule):
    trim: int = option(1, "clients left out", range=COUNT)
    def __call__(self, cohort, server):
        return server
"""
