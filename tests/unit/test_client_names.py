"""What clients are called: short, different, and harmless on a terminal, whatever files and columns hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.client_names import MAX_CHARACTERS, are_named, labels, name_of_values, names_in, own_name, told

LONG = "University Hospital of the Holy Spirit, ward "


@given(
    st.lists(
        st.one_of(st.text(max_size=60), st.sampled_from(["a", "a (0)", "client 1", LONG + "1", LONG * 3])), max_size=8
    )
)
def test_labels_are_short_different_and_printable(names: list[str]) -> None:
    found = labels(names)
    assert len(found) == len(names)
    for label in found:
        assert label.strip()
        assert "\n" not in label and "\x1b" not in label
        assert len(label) <= MAX_CHARACTERS + len(" (7) (7)")
    assert len(set(found)) == len(found)


def test_a_label_is_the_name_where_it_can_be() -> None:
    assert labels(["north", "", "south"]) == ("north", "client 1", "south")
    assert labels(["north", "north"]) == ("north (0)", "north (1)")
    assert labels([LONG + "North", LONG + "South"]) == (
        "University Hospital o…ward North",
        "University Hospital o…ward South",
    )
    assert labels(["a\x1b[2J\nb"]) == (r"a\x1b[2J b",)
    assert labels(["north"], 3) == ("north", "client 1", "client 2")
    assert labels(["x\u202ey"]) == (r"x\u202ey",), "what turns the direction of writing is shown"


@pytest.mark.parametrize("name", ["", "  ", "3", "client 3"])
def test_a_name_that_says_no_more_than_the_number_is_none(name: str) -> None:
    assert own_name(3, name) == ""
    assert told(3, ["", "", "", name]) == "client 3"
    assert not are_named(["", "", "", name])


def test_a_sentence_has_number_and_name() -> None:
    assert told(1, ["north", "south\t\x07"]) == r"client 1 (south \x07)"
    assert told(7, ["north"]) == "client 7"


def test_several_values_are_one_name() -> None:
    assert name_of_values(["GHR"]) == "GHR"
    assert name_of_values(["GHR", "GARD"]) == "GHR, GARD"
    assert name_of_values([f"source {i}" for i in range(9)]) == "source 0, source 1 +7"
    assert name_of_values(["", "b"]) == "(blank), b"
    assert len(name_of_values([LONG * 3, "b"])) <= MAX_CHARACTERS + len(" +1")


def test_names_of_a_partition() -> None:
    assert names_in({"clients": [{"name": "north"}, {}]}) == ("north", "")
    for none in (None, {}, {"clients": [{}, {}]}, {"clients": [{"name": "0"}, {"name": 5}]}):
        assert names_in(none) == ()
