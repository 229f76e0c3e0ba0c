"""Options of parts from outside are checked against their annotations."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fedlit import registry
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.options import option
from fedlit.ranges import FRACTION
from fedlit.recipes import parts_of
from fedlit.round.rules import AggregationRule

RULE = "method.rule=hinted_part"


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


def test_an_annotation_is_the_type_and_a_field_without_a_default_is_the_user_s_to_give() -> None:
    hints = {name: found.hint for name, found in parts_of("rule")["hinted_part"].own_options().items()}
    assert hints["needed"] is int and hints["cut"] == float | None and hints["names"] == list[str] | None
    with pytest.raises(UserError, match=r"method\.needed=null \(default\) is not given .* add method\.needed=<value>"):
        load_config([RULE])


@pytest.mark.parametrize(
    "argument",
    ["method.needed=x", "method.needed=1.5", "method.cut=x", "method.cut=true", "method.names=x", "method.names=[1]"],
)
def test_a_value_of_another_type_is_refused(argument: str) -> None:
    with pytest.raises(UserError, match="has the wrong type"):
        load_config([RULE, argument])


def test_values_of_the_right_type_pass() -> None:
    words = [RULE, "method.needed=3", "method.cut=1", "method.names=[a, b]", "method.free={a: [1]}", "method.cut=1"]
    options = load_config(words).method.options
    assert {name: options[name] for name in ("needed", "cut", "names")} == {"needed": 3, "cut": 1, "names": ["a", "b"]}


@dataclass(frozen=True)
class Dropout:
    """An availability that is never built."""

    rate: float = option(0.1, "share that is lost", range=FRACTION)
    name: str | None = None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("{rate: x}", "rate=x of the wrong type; expected: number"),
        ("{rate: 1}", "rate=1, which is out of range; give a number from 0"),
        ("{name: 3}", "name=3 of the wrong type; expected: text or null"),
        ("{rat: 1}", "has rat, which no part takes"),
    ],
)
def test_options_of_a_part_of_the_plan_are_checked(options: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._registered["availability"], "hinted_dropout", Dropout)
    load_config(["cohort.availability=hinted_dropout", "cohort.options={rate: 0.5, name: null}"])
    with pytest.raises(UserError) as caught:
        load_config(["cohort.availability=hinted_dropout", f"cohort.options={options}"])
    assert told in str(caught.value)
