"""Secure aggregation: keys, shares and masks, so that only a sum can be read."""

from fedlit.secure.aggregation import FEWEST, SecureAggregation
from fedlit.secure.messages import SecureBytes, SecureTraffic

__all__ = ["FEWEST", "SecureAggregation", "SecureBytes", "SecureTraffic"]
