"""The house's palette on a screen: each colour as it stands out against a white and against a dark page.

Sand and cyan are too pale for a line on white, indigo and wine too dark for one on black. Every shade here has a
contrast of at least 3:1 against its page (WCAG 2.2, 1.4.11), and any two of one page stay apart.
"""

from fedlit.lab.analysis.palette import PALETTE

LIGHT_PAGE, DARK_PAGE = "#FFFFFF", "#15171B"
"""Backgrounds behind the lines."""

# indigo, rose, green, sand, wine, cyan, purple, olive, blue, teal
_ON_LIGHT = (
    "#332288", "#CC6677", "#117733", "#A98A12", "#882255", "#1F9AD8", "#AA4499", "#66660F", "#00568F", "#40A191",
)  # fmt: skip
_ON_DARK = (
    "#8A7BF0", "#E07A8B", "#2FA657", "#DDCC77", "#C2266F", "#88CCEE", "#C868BE", "#8F8F2A", "#1F86D0", "#44AA99",
)  # fmt: skip


def shades() -> list[dict[str, str]]:
    """Return `{"light": ..., "dark": ...}` for each colour of the palette, in its order."""
    assert len(_ON_LIGHT) == len(_ON_DARK) == len(PALETTE)
    return [{"light": light, "dark": dark} for light, dark in zip(_ON_LIGHT, _ON_DARK, strict=True)]
