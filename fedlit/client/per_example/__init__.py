"""Gradients of single examples, each clipped before they are added up."""
