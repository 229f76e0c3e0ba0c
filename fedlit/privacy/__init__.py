"""Differential privacy: how much a run spends, and the noise. Neither torch nor the accountant is imported here."""
