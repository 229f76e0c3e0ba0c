#!/usr/bin/env bash
# peft: by default the matrices of OFT are not orthogonal.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    OFT with blocks of 4 on one linear layer, all parameters 0.5 or -0.5, and the mean of two such adapters; once
#           with the default use_cayley_neumann=True (a series of 5 terms), once with False.
# Expected: R R' = I to the digits of float32. That is what OFT is named for, and also what a mean of parameters gives:
#           any skew-symmetric matrix makes a rotation by Cayley's formula.
# Seen:     with the series R R' differs from I by 0.13 for each adapter and by 0.44 for the mean of the two; without it
#           by 1e-7.
# So:       lengths and angles of the weights change, and change otherwise after averaging. Set use_cayley_neumann=False
#           where parameters are large or adapters are averaged.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import torch
from peft import OFTConfig, get_peft_model
from torch import nn

first, second = torch.tensor([[0.5, -0.5, 0.5, 0.5, -0.5, 0.5]]), torch.tensor([[0.5] * 6])
for series in (True, False):
    plain = nn.Sequential()
    plain.add_module("layer", nn.Linear(4, 4, bias=False))
    model = get_peft_model(plain, OFTConfig(oft_block_size=4, target_modules=["layer"], use_cayley_neumann=series))
    rotation = model.base_model.model.layer.oft_R["default"]
    for name, weight in {"first": first, "second": second, "mean": (first + second) / 2}.items():
        rotation.weight.data = weight
        made = rotation.get_weight().detach()
        missed = float((made @ made.T - torch.eye(4)).abs().max())
        print(f"use_cayley_neumann={series} {name}: R R' differs from I by {missed:.2f}")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
use_cayley_neumann=True first: R R' differs from I by 0.13
use_cayley_neumann=True second: R R' differs from I by 0.13
use_cayley_neumann=True mean: R R' differs from I by 0.44
use_cayley_neumann=False first: R R' differs from I by 0.00
use_cayley_neumann=False second: R R' differs from I by 0.00
use_cayley_neumann=False mean: R R' differs from I by 0.00
SEEN
echo "as written above"
