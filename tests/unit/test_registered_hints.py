"""Options of parts from outside are checked against their annotations where their default does not tell the type."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fedlit import registry
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.round.rules import AggregationRule


@dataclass(frozen=True)
class Part(AggregationRule):
    """A rule that is never built: its options alone are looked at."""

    needed: int
    cut: float | None = None
    names: list[str] | None = None
    free: Any = None
    mapping: dict[str, int] | None = None
    ready: bool = False
    sizes: tuple[int, ...] = field(default=(1, 2))

    def __call__(self, cohort: Any, server: Any) -> Any:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def part() -> Iterator[None]:
    registry.register("rule", "hinted_part", Part)
    yield
    del registry._registered["rule"]["hinted_part"]


def test_only_plain_annotations_of_silent_defaults_are_hints() -> None:
    assert registry.registered_hints() == {"needed": int, "cut": float | None, "names": list[str] | None}


@pytest.mark.parametrize(
    "argument",
    ["method.needed=x", "method.needed=1.5", "method.cut=x", "method.cut=true", "method.names=x", "method.names=[1]"],
)
def test_a_value_of_another_type_is_refused(argument: str) -> None:
    with pytest.raises(UserError, match="has the wrong type"):
        load_config([argument])


def test_values_of_the_right_type_pass() -> None:
    words = ["method.needed=3", "method.cut=1", "method.names=[a, b]", "method.free={a: [1]}", "method.cut=1"]
    options = load_config(words).method.options
    assert {name: options[name] for name in ("needed", "cut", "names")} == {"needed": 3, "cut": 1, "names": ["a", "b"]}
