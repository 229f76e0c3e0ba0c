"""One look for each recipe, in every picture."""

from fedlit.lab.analysis.palette import PALETTE
from fedlit.lab.analysis.slots import _NAMES, colours, recipe_of, slots
from fedlit.recipes import RECIPES


def test_a_recipe_has_one_slot_whatever_stands_beside_it() -> None:
    alone = {name: slots([name])[0] for name in RECIPES}
    assert len(set(alone.values())) == len(RECIPES)
    for first in RECIPES:
        for second in RECIPES:
            if first != second:
                assert slots([second, "mine", first])[::2] == [alone[second], alone[first]]


def test_further_lines_take_slots_that_no_recipe_in_the_picture_has() -> None:
    labels = ["fedit, lora_rank 4", "fedit, lora_rank 8", "mine", "ffa_lora"]
    found = slots(labels)
    assert len(set(found)) == len(labels)
    assert found[0] == slots(["fedit"])[0]
    assert found[3] == slots(["ffa_lora"])[0]


def test_lines_of_no_recipe_are_counted() -> None:
    assert slots(["0.1", "0.01", "fedex"]) == [0, 1, 2]


def test_a_label_begins_with_its_recipe() -> None:
    assert recipe_of("fedex_lora (rank 4)") == "fedex_lora"
    assert recipe_of("fedex_lora") == "fedex_lora"
    assert recipe_of("fedex") is None
    assert recipe_of("fedit-0.001") is None
    assert recipe_of("") is None


def test_colours_are_of_the_palette() -> None:
    assert colours(["scl", "fedit"]) == {"scl": PALETTE[slots(["scl"])[0]], "fedit": PALETTE[0]}


def test_every_recipe_of_the_package_has_a_slot() -> None:
    assert sorted(_NAMES) == sorted(RECIPES)
