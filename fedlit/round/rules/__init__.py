"""How the server combines what the clients of a round trained.

Torch is imported with the first name that is asked for.
"""

from typing import TYPE_CHECKING

from fedlit.lazy import names_of

if TYPE_CHECKING:
    from fedlit.round.rules.base import AggregationRule, Traffic, both_ways, payload_bytes

__all__ = ["AggregationRule", "Traffic", "both_ways", "payload_bytes"]

__getattr__ = names_of("fedlit.round.rules.base", __all__)
