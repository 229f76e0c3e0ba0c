#!/usr/bin/env bash
# peft: add_weighted_adapter of rsLoRA adapters adds sqrt(rank) times the weighted sum, without a warning.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    two LoRA adapters of rank 8 and alpha 16 on one linear layer, random factors, weights 0.5 and 0.5; once with
#           use_rslora=False, once with use_rslora=True.
# Expected: combination_type="cat" and "svd" give the mean of the two changes of the weight, as they do without rsLoRA.
# Seen:     with use_rslora=True it is the mean times the square root of the new adapter's rank: 4 at rank 16 ("cat"),
#           2.83 times its best approximation at rank 8 ("svd").
# So:       the combined adapter is far too strong. Read alpha and rank of each adapter and add up the products
#           oneself, or divide the weights by the square root of the rank that comes out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import copy

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

RANK = 8


def change(model, adapter):
    """Return what an adapter adds to the weight."""
    return model.base_model.model.layer.get_delta_weight(adapter).detach()


for use_rslora in (False, True):
    torch.manual_seed(0)
    plain = nn.Sequential()
    plain.add_module("layer", nn.Linear(32, 48, bias=False))
    config = LoraConfig(r=RANK, lora_alpha=16, target_modules=["layer"], use_rslora=use_rslora)
    model = get_peft_model(plain, config, adapter_name="one")
    model.add_adapter("two", copy.deepcopy(config))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn_like(parameter)
    mean = (change(model, "one") + change(model, "two")) / 2
    u, s, vh = torch.linalg.svd(mean)
    best = u[:, :RANK] * s[:RANK] @ vh[:RANK]
    for kind, wanted, more in (("cat", mean, {}), ("svd", best, {"svd_rank": RANK})):
        model.add_weighted_adapter(["one", "two"], [0.5, 0.5], kind, combination_type=kind, **more)
        given = change(model, kind)
        factor = float((given * wanted).sum() / wanted.square().sum())
        beside = float((given - factor * wanted).norm() / wanted.norm())
        print(f"use_rslora={use_rslora} {kind}: {factor:.2f} times what is expected, {beside:.3f} beside it")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
use_rslora=False cat: 1.00 times what is expected, 0.000 beside it
use_rslora=False svd: 1.00 times what is expected, 0.000 beside it
use_rslora=True cat: 4.00 times what is expected, 0.000 beside it
use_rslora=True svd: 2.83 times what is expected, 0.000 beside it
SEEN
echo "as written above"
