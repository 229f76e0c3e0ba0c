"""Which look a line has: one for each recipe, the same in every picture, page, table and view.

A slot is a place in the order of looks: a colour of the palette, and beyond its end the same colours with other dashes.
"""

import re
from collections.abc import Sequence

from fedlit.lab.analysis.palette import PALETTE
from fedlit.recipes import RECIPES
from fedlit.registry import registered

_NAMES = (
    *("fedit", "ffa_lora", "fedex_lora", "flexlora", "scl", "fedsa_lora", "fedftg", "flora", "full", "rolora"),
    *("fedsvd", "fedrot_lora", "hetlora", "fed_sb", "centralized", "local_only"),
    *("florist", "fedmomentum", "lora_fair"),
    *("ravan", "fedask"),
    *("feddpa", "fedalt"),
    *("la_lora", "fedgalore"),
)
"""The recipes by slot: those that the papers compare most are far apart in colour."""


def recipe_of(label: str) -> str | None:
    """Return the recipe that a line's label begins with, as `fedex_lora` in `fedex_lora, lora_rank 4`; None without."""
    first = re.split(r"[^\w.-]", label, maxsplit=1)[0]
    return first if first in RECIPES or first in registered("recipe") else None


def slots(labels: Sequence[str]) -> list[int]:
    """Return the slot of each of the distinct labels of one picture.

    A recipe of the package has its own, its place in this order, in every picture. Its further lines, recipes from
    outside and lines of something else take the slots that no recipe in the picture has, the first free one each.
    """
    recipes = [recipe_of(label) for label in labels]
    own: dict[int, int] = {}
    for line, recipe in enumerate(recipes):
        slot = _NAMES.index(recipe) if recipe in _NAMES else None
        if slot is not None and slot not in own.values():
            own[line] = slot
    free = (slot for slot in range(len(labels) + len(_NAMES)) if slot not in own.values())
    return [own[line] if line in own else next(free) for line in range(len(labels))]


def colours(labels: Sequence[str]) -> dict[str, str]:
    """Return the colour of each of the distinct labels of one picture."""
    return {label: PALETTE[slot % len(PALETTE)] for label, slot in zip(labels, slots(labels), strict=True)}
