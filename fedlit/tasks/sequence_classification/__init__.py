"""Sequence classification: the class of a text or of a pair of texts, or a number in a regression."""
