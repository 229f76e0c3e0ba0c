"""Pretrained backbones: loading them, and the names of what is inside."""

from fedlit.models.loading import PACKAGED, Backbone, Purpose, load_backbone, load_tokenizer
from fedlit.models.projections import HEADS, PROJECTIONS, Projections, head_parameters

__all__ = [
    "HEADS",
    "PACKAGED",
    "PROJECTIONS",
    "Backbone",
    "Projections",
    "Purpose",
    "head_parameters",
    "load_backbone",
    "load_tokenizer",
]
