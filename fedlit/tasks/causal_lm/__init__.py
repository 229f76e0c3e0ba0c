"""Causal language modelling: a response follows its prompt."""
