"""Imported by the warm parent before commands of pages are forked from it: what each would do again."""

import re

import torch

from fedlit import launch
from fedlit.config import ModelConfig
from fedlit.models import load_backbone

torch.set_num_threads(1)  # before the first product: the parent must not have a second thread
launch.quieten()  # a progress bar would leave a thread behind
re._MAXCACHE = 2**20  # type: ignore[attr-defined]  # transformers compiles a thousand patterns for every model
load_backbone(ModelConfig())
