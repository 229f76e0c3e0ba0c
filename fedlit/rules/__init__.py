"""Aggregation of LoRA adapters outside a federation: state dicts in, one state dict out, wherever they were trained.

An adapter is a mapping from the name of a layer to (A, B, scaling): A (r, in), B (out, r), and the layer's weight
changes by scaling * B @ A. Ranks and scalings may differ from adapter to adapter and from layer to layer. Everything is
computed in float64, from thin factors, one layer after the other; no model is loaded.

    from fedlit.rules import flexlora, from_state_dict, relative_distance
    adapters = [
        from_state_dict(get_peft_model_state_dict(model), model.peft_config["default"].to_dict()) for model in models
    ]
    mean = flexlora(adapters, weights=[3, 1], rank=8)
    print(relative_distance(mean, adapters, weights=[3, 1]))
    model = get_peft_model(backbone, LoraConfig(**lora_options(mean)))
    set_peft_model_state_dict(model, to_state_dict(mean))

`fedlit aggregate` is the command line over it; `read_adapter_folder` gives an adapter from a folder of peft.
"""

from fedlit.rules.factors import Adapter, Factors, mean_change, normalized, relative_distance
from fedlit.rules.folders import AdapterFolder, read_adapter_folder
from fedlit.rules.of_adapters import fedex, fedex_residual, fedit, fedrot, flexlora, flora, hetlora, lora_fair
from fedlit.rules.one_shot import Rule, aggregate_folders
from fedlit.rules.state_dicts import from_state_dict, lora_options, to_state_dict
from fedlit.rules.trials import Outcome
from fedlit.rules.writing import write_adapter

__all__ = [
    "Adapter",
    "AdapterFolder",
    "Factors",
    "Outcome",
    "Rule",
    "aggregate_folders",
    "fedex",
    "fedex_residual",
    "fedit",
    "fedrot",
    "flexlora",
    "flora",
    "from_state_dict",
    "hetlora",
    "lora_fair",
    "lora_options",
    "mean_change",
    "normalized",
    "read_adapter_folder",
    "relative_distance",
    "to_state_dict",
    "write_adapter",
]
