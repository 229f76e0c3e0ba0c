"""Which tensors of a model exist, train, travel and stay.

Torch is imported with the first name that is asked for.
"""

from typing import TYPE_CHECKING

from fedlit.lazy import names_of

if TYPE_CHECKING:
    from fedlit.adapters.base import Adapter, Calibration, trainable

__all__ = ["Adapter", "Calibration", "trainable"]

__getattr__ = names_of("fedlit.adapters.base", __all__)
