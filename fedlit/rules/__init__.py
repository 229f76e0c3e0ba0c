"""Aggregation of LoRA adapters outside a federation: state dicts in, one state dict out, wherever they were trained.

An adapter is a mapping from the name of a layer to (A, B, scaling): A (r, in), B (out, r), and the layer's weight
changes by scaling * B @ A. Ranks and scalings may differ from adapter to adapter and from layer to layer. Everything is
computed in float64, from thin factors, one layer after the other; no model is loaded.

    from fedlit.rules import flexlora, relative_distance
    mean = flexlora([adapter_a, adapter_b], weights=[3, 1], rank=8)
    print(relative_distance(mean, [adapter_a, adapter_b], weights=[3, 1]))

`fedlit aggregate` is the command line over it; `read_adapter_folder` gives an adapter from a folder of peft.
"""

from fedlit.rules.factors import Adapter, Factors, mean_change, normalized, relative_distance
from fedlit.rules.folders import AdapterFolder, read_adapter_folder
from fedlit.rules.of_adapters import fedex, fedit, flexlora, flora, hetlora
from fedlit.rules.one_shot import Outcome, Rule, aggregate_folders
from fedlit.rules.writing import write_adapter

__all__ = [
    "Adapter",
    "AdapterFolder",
    "Factors",
    "Outcome",
    "Rule",
    "aggregate_folders",
    "fedex",
    "fedit",
    "flexlora",
    "flora",
    "hetlora",
    "mean_change",
    "normalized",
    "read_adapter_folder",
    "relative_distance",
    "write_adapter",
]
