#!/usr/bin/env bash
# peft: save_as_lora of a DoRA adapter drops its magnitudes, although it says that DoRA can be converted.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    a DoRA adapter of rank 4 on one linear layer (32 in, 48 out) whose magnitudes are 10 % larger than the weight's
#           own; supports_lora_conversion(), then save_as_lora at the full rank, 32, and the saved adapter is loaded.
# Expected: the change of the merged weight, which has rank 32 at most and is a plain matrix; or a refusal, as for KaSA.
# Seen:     supports_lora_conversion() is True. What is written is scaling * B @ A alone: merging DoRA is right, the
#           converted adapter misses a fifth of the effect. The only warning says that it is a LoRA adapter already.
# So:       take the difference of the merged weight and the old one and factorise that.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import copy
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.conversion import save_as_lora
from torch import nn


def plain():
    """Return a model with one linear layer."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("layer", nn.Linear(32, 48, bias=False))
    return model


model = get_peft_model(plain(), LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["layer"]))
torch.manual_seed(1)
for name, parameter in model.named_parameters():
    if "lora_magnitude_vector" in name:
        parameter.data = 1.1 * parameter.data
    elif ".lora_" in name:
        parameter.data = 0.1 * torch.randn_like(parameter)
inputs = torch.randn(64, 32)
base, dora = plain()(inputs).detach(), model(inputs).detach()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    save_as_lora(sys.argv[1], model, rank=32)
converted = PeftModel.from_pretrained(plain(), sys.argv[1])(inputs).detach()
merged = copy.deepcopy(model).merge_and_unload()(inputs).detach()
print("supports_lora_conversion:", model.supports_lora_conversion())
for name, outputs in (("merged", merged), ("converted", converted)):
    print(f"{name}: misses {(outputs - dora).norm() / (dora - base).norm():.2f} of the effect")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" "$work/lora" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
supports_lora_conversion: True
merged: misses 0.00 of the effect
converted: misses 0.21 of the effect
SEEN
echo "as written above"
