"""Scores whose state is integers, or items put in order before anything is computed: every split of the examples over
processes gives the same bits.
"""
