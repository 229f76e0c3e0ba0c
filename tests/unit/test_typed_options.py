"""What a part's dataclass says of its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest

from fedlit.options import REQUIRED, Option, nested, option, options_of
from fedlit.ranges import FRACTION, POSITIVE_COUNT

if TYPE_CHECKING:
    from nowhere import Unknown


@dataclass(frozen=True)
class Inner:
    rank: int | None = option(16, "rows that stay", range=POSITIVE_COUNT)
    seed: int = 3


@dataclass(frozen=True, kw_only=True)
class Part:
    share: float = option(0.5, "share of the clients", range=FRACTION)
    lr: float = 0.1
    names: Sequence[str] | str = ("a", "b")
    side: Literal["left", "right"] = "left"
    kinds: list[str] = option(("x",), "kinds", values=("x", "y"))
    needed: int
    asked: float = option(help="must be given")
    inner: Inner = field(default_factory=Inner)
    table: Mapping[str, int] = field(default_factory=dict)
    shut: str = "bound"
    made: int = field(default=0, init=False)


@dataclass
class OfTheChecker:
    what: Unknown = 3
    other: Unknown | None = None


def test_a_dataclass_tells_its_options() -> None:
    options = options_of(Part, without=("shut", "lr"))
    assert list(options) == ["share", "names", "side", "kinds", "needed", "asked", "inner.rank", "inner.seed", "table"]
    assert options["share"] == Option("share", float, 0.5, "share of the clients", FRACTION)
    assert options["inner.rank"] == Option("inner.rank", int | None, 16, "rows that stay", POSITIVE_COUNT)
    assert options["needed"] == Option("needed", int) and options["asked"].default == REQUIRED
    assert (options["names"].hint, options["names"].default) == (list[str] | str, ["a", "b"])
    assert (options["side"].hint, options["side"].valid) == (str, ("left", "right"))
    assert options["kinds"].valid == ("x", "y") and options["table"].hint == dict[str, Any]
    assert Part(needed=1, asked=2.0).kinds == ["x"] and Part(needed=1, asked=2.0).kinds is not options["kinds"].default


def test_an_annotation_that_cannot_be_read_leaves_the_default() -> None:
    assert {name: found.hint for name, found in options_of(OfTheChecker).items()} == {"what": int, "other": Any}


def test_valid_values_may_be_asked_for_late() -> None:
    names = ["a"]
    late = Option("x", str, "a", values=lambda: tuple(names))
    names.append("b")
    assert late.valid == ("a", "b")


def test_an_option_without_a_default_must_be_given() -> None:
    with pytest.raises(TypeError, match="asked"):
        Part(needed=1)


def test_dotted_names_become_mappings() -> None:
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
