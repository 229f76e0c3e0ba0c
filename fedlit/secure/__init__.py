"""Secure aggregation: keys, shares and masks, so that only a sum can be read."""
