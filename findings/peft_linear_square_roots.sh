#!/usr/bin/env bash
# peft: add_weighted_adapter of an adapter with itself, by "linear" and weights 0.5 and 0.5, is twice the adapter.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    LoRA adapters of one rank on one linear layer, combination_type="linear": once the same adapter two times with
#           weights 0.5 and 0.5, then two random adapters with weights 0.75 and 0.25.
# Expected: the adapter itself, as "cat" and "svd" give it; of two adapters the weighted mean of their changes, or at
#           least the product of the weighted means of A and of B.
# Seen:     each factor is multiplied by the square root of its weight. Of weights that sum to 1 the roots sum to more:
#           the result is twice the adapter, and of two adapters neither the one nor the other.
# So:       take "cat" or "svd" without rsLoRA, or average the factors oneself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model
from torch import nn


def change(adapter):
    """Return what an adapter adds to the weight."""
    return model.base_model.model.layer.get_delta_weight(adapter).detach()


def combined(names, weights, kind):
    """Return what a combination of adapters adds to the weight."""
    model.add_weighted_adapter(names, weights, "combined", combination_type=kind)
    made = change("combined")
    model.delete_adapter("combined")
    return made


def times(given, wanted):
    """Return the factor that brings one matrix nearest to another, and what is left of it, relatively."""
    factor = (given * wanted).sum() / wanted.square().sum()
    return f"{factor:.2f} times, {(given - factor * wanted).norm() / wanted.norm():.2f} beside it"


torch.manual_seed(0)
plain = nn.Sequential()
plain.add_module("layer", nn.Linear(32, 48, bias=False))
model = get_peft_model(plain, LoraConfig(r=8, lora_alpha=16, target_modules=["layer"]), adapter_name="one")
model.add_adapter("two", LoraConfig(r=8, lora_alpha=16, target_modules=["layer"]))
for name, parameter in model.named_parameters():
    if ".lora_" in name:
        parameter.data = torch.randn_like(parameter)
print("the same adapter by cat:", times(combined(["one", "one"], [0.5, 0.5], "cat"), change("one")))
print("the same adapter by linear:", times(combined(["one", "one"], [0.5, 0.5], "linear"), change("one")))
layer, weights = model.base_model.model.layer, {"one": 0.75, "two": 0.25}
given = combined(list(weights), list(weights.values()), "linear")
a = sum(weight * layer.lora_A[name].weight for name, weight in weights.items()).detach()
b = sum(weight * layer.lora_B[name].weight for name, weight in weights.items()).detach()
print("two adapters by linear, the mean of changes:", times(given, 0.75 * change("one") + 0.25 * change("two")))
print("two adapters by linear, the product of means:", times(given, 2 * b @ a))
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
the same adapter by cat: 1.00 times, 0.00 beside it
the same adapter by linear: 2.00 times, 0.00 beside it
two adapters by linear, the mean of changes: 0.98 times, 0.83 beside it
two adapters by linear, the product of means: 1.57 times, 0.49 beside it
SEEN
echo "as written above"
