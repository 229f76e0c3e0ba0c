"""Pretrained backbones: loading them, and the names of what is inside."""

from fedlit.models.adapter_folder import AdapterStart
from fedlit.models.backbone import Backbone, Purpose
from fedlit.models.loading import load_backbone, load_tokenizer
from fedlit.models.own import OwnBackbone
from fedlit.models.places import MEMORY, PACKAGED
from fedlit.models.projections import HEADS, PROJECTIONS, Projections, head_parameters
from fedlit.models.tying import any_tied, untie

__all__ = [
    "HEADS",
    "MEMORY",
    "PACKAGED",
    "PROJECTIONS",
    "AdapterStart",
    "Backbone",
    "OwnBackbone",
    "Projections",
    "Purpose",
    "any_tied",
    "head_parameters",
    "load_backbone",
    "load_tokenizer",
    "untie",
]
