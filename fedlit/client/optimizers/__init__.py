"""How one client steps.

Torch is imported with the first name that is asked for.
"""

from typing import TYPE_CHECKING

from fedlit.lazy import names_of

if TYPE_CHECKING:
    from fedlit.client.optimizers.base import LocalOptimizer

__all__ = ["LocalOptimizer"]

__getattr__ = names_of("fedlit.client.optimizers.base", __all__)
