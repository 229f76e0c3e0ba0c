"""A client's model of two LoRAs and what weighs them as files: two adapters of peft, and beside them the gate.

    shared/      the LoRA that came from the server, an adapter of peft by itself: W + s B A
    private/     the client's own, likewise
    mixing.safetensors   gates or references, and a trained head, by parameter name
    mixing.json          which adapter of fedlit it is, and its options

peft loads each LoRA alone, and no weight holds both: `load_pair` puts them into a pretrained model with their gate.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedlit.adapters.lora_dual import LoraDual
from fedlit.adapters.lora_pair import PRIVATE, SHARED, LoraPair, pair_layers
from fedlit.adapters.lora_rest import LoraRest
from fedlit.adapters.peft_files import write_peft_adapter
from fedlit.algebra.tensors import copy_into
from fedlit.cards.files import PAIR
from fedlit.errors import UserError

MIXING, GATE = PAIR, "mixing.safetensors"
_KINDS: Mapping[str, type[LoraPair]] = {"lora_rest": LoraRest, "lora_dual": LoraDual}
_SHELL = "base_model.model."
"""What peft puts before the name of a layer."""


def write_pair(folder: Path, adapter: LoraPair, model: nn.Module, head: Mapping[str, Tensor]) -> None:
    """Write a model with two LoRAs into an existing folder; `head` is a trained classification head."""
    tensors = {name: parameter.data for name, parameter in model.named_parameters()}
    path = str(getattr(model, "name_or_path", ""))
    for which in (SHARED, PRIVATE):
        (folder / which).mkdir()
        write_peft_adapter(
            folder / which,
            adapter.described(model, which),
            tensors,
            {},
            backbone_path="" if Path(path).exists() else path,  # a place of this machine says nothing elsewhere
            task_type="CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else None,
        )
    (kind,) = [name for name, known in _KINDS.items() if type(adapter) is known]
    options = {entry.name: getattr(adapter, entry.name) for entry in dataclasses.fields(adapter)}
    options["target_modules"] = [name for name, _ in pair_layers(model)]
    names: Any = getattr(model.config, "id2label", None) if head else None
    described = {"adapter": kind, "options": options, **({"id2label": names} if names else {})}
    (folder / MIXING).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    kept = {**adapter.weighing(model), **head}
    held = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in kept.items()}
    save_file(held, folder / GATE, metadata={"format": "pt"})


@torch.no_grad()
def load_pair(model: Any, folder: Path) -> Any:
    """Put two LoRAs, their gate and a trained head from files around the layers of a pretrained model, in place.

    Returns:
        The model, in evaluation mode, without anything that trains.

    Raises:
        UserError: the folder has no such files, or they are of another model.
    """
    try:
        described = json.loads((folder / MIXING).read_bytes())
        adapter = _KINDS[described["adapter"]](**described["options"])
        kept = load_file(folder / GATE)
        for which in (SHARED, PRIVATE):
            found = load_file(folder / which / "adapter_model.safetensors")
            kept |= {_own_name(name, which): tensor for name, tensor in found.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} does not hold two LoRAs and their gate ({str(error)[:120]}); give a client's folder of a result"
        ) from error
    names = adapter.target_modules
    modules = dict(model.named_modules())
    lacking = [name for name in names if name not in modules]
    if lacking:
        raise UserError(
            f"{folder} changes {lacking[0]}, which the backbone has not; give the backbone that it was trained on"
        )
    adapter.put_into(model, list(names))
    parameters = dict(model.named_parameters())
    copy_into({name: parameters[name] for name in kept}, kept)
    return model.requires_grad_(False).eval()


def _own_name(name: str, which: str) -> str:
    """Return the parameter that a name in an adapter's file stands for."""
    return f"{name.removeprefix(_SHELL).removesuffix('.weight')}.{which}.weight"
