"""Imported by the warm parent of the tests' many small federations, after the package: what makes them quicker.

Nothing of it changes what a run computes: pictures are left out, which take a third of a small run's time and are
looked at elsewhere, and libraries fill their caches.
"""

import re

import torch

from fedlit import launch
from fedlit.config import ModelConfig
from fedlit.lab.callbacks import Callback
from fedlit.models import load_backbone

torch.set_num_threads(1)  # before the first product: the parent must not have a second thread
launch.quieten()  # a progress bar would leave a thread behind
launch.RunPlots = lambda _folder: Callback()  # type: ignore[assignment, attr-defined, return-value]
# transformers compiles a thousand patterns for every model it loads, twice as many as `re` remembers.
re._MAXCACHE = 2**20  # type: ignore[attr-defined]
load_backbone(ModelConfig())
