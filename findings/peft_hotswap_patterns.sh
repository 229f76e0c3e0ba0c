#!/usr/bin/env bash
# peft: hotswap_adapter gives every layer the scaling alpha / r, and forgets rank_pattern and alpha_pattern.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    a LoRA adapter of rank 4 and alpha 16, with rank 2 at one of three layers and alpha 2 at another. It is loaded,
#           and then swapped in for itself.
# Expected: nothing changes.
# Seen:     the scalings 4, 8 and 0.5 become 4, 4 and 4, without a warning. The patterns are compared with the names of
#           tensors (".lora_A.default.weight"), which no pattern for a layer fits.
# So:       a swapped adapter with patterns computes something else. Load it under a new name and delete the old one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from torch import nn


def plain():
    """Return a model with three linear layers."""
    torch.manual_seed(0)
    model = nn.Sequential()
    for name in ("q", "k", "v"):
        model.add_module(name, nn.Linear(16, 16))
    return model


def told(model):
    """Return the scaling of every layer, and a number that the model computes."""
    layers = {name: layer.scaling["default"] for name, layer in model.base_model.model.named_children()}
    return f"{layers} output {model(torch.ones(1, 16)).norm().item():.2f}"


config = LoraConfig(r=4, lora_alpha=16, target_modules=["q", "k", "v"], rank_pattern={"k": 2}, alpha_pattern={"v": 2})
trained = get_peft_model(plain(), config)
for name, parameter in trained.named_parameters():
    if ".lora_" in name:
        parameter.data = 0.2 * torch.randn_like(parameter)
trained.save_pretrained(sys.argv[1])
model = PeftModel.from_pretrained(plain(), sys.argv[1])
print("loaded ", told(model))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    hotswap_adapter(model, sys.argv[1], "default", torch_device="cpu")
print("swapped", told(model), f"warnings: {len(caught)}")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" "$work/adapter" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
loaded  {'q': 4.0, 'k': 8.0, 'v': 0.5} output 4.43
swapped {'q': 4.0, 'k': 4.0, 'v': 4.0} output 4.57 warnings: 0
SEEN
echo "as written above"
