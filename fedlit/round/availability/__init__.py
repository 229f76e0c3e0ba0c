"""Which of the invited clients come back, and when.

NumPy is imported with the first name that is asked for; what the parts take stands in `options`.
"""

from typing import TYPE_CHECKING

from fedlit.lazy import names_of

if TYPE_CHECKING:
    from fedlit.round.availability.base import Always, Availability, Draws, Window

__all__ = ["Always", "Availability", "Draws", "Window"]

__getattr__ = names_of("fedlit.round.availability.base", __all__)
