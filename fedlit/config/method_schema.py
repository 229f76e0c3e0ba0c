"""The section `method.` of a run: its recipe, and what is put in the place of the recipe's parts."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class MethodConfig:
    """One recipe (adapter x optimizer x rule) and its own options, which `configs/method/<name>.yaml` declares."""

    name: str = "fedit"
    """name of the recipe in `fedlit/methods.py`"""
    adapter: str | None = None
    """adapter in place of the recipe's own; null to keep it"""
    optimizer: str | None = None
    """local optimizer in place of the recipe's own; null to keep it"""
    rule: str | None = None
    """aggregation rule in place of the recipe's own; null to keep it"""
    transforms: list[str] | None = None
    """what happens to an update between client and rule, in place of the recipe's own, in order; null to keep those"""
    pooled: bool | None = None
    """true: one client trains on everybody's rows with as many steps as all would; null as the recipe says"""
    private_head: bool = False
    """true: a classification head stays with its client; false: it travels like the adapter's tensors"""
    options: dict[str, Any] = field(default_factory=dict)
    """the recipe's options, written on the command line as `method.<option>=`"""
