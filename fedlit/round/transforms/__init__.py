"""What happens to a payload between a client and the rule.

Torch is imported with the first name that is asked for.
"""

from typing import TYPE_CHECKING

from fedlit.lazy import names_of

if TYPE_CHECKING:
    from fedlit.round.transforms.base import Transform, Transforms

__all__ = ["Transform", "Transforms"]

__getattr__ = names_of("fedlit.round.transforms.base", __all__)
