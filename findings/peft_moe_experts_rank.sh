#!/usr/bin/env bash
# peft: LoRA on the experts of a Mixtral gets twice the rank that was asked for in one of the two projections.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    a small Mixtral with 4 experts and LoraConfig(r=8, lora_alpha=16), by the names of the experts' projections
#           that papers use (w1, w2, w3), and by the names of the tensors (target_parameters).
# Expected: rank 8 in every adapted projection of every expert.
# Seen:     w1 and w3 lie in one tensor, gate_up_proj. By the papers' names it gets rank 16 and alpha 32, the other one
#           rank 8, and a warning says that the patterns with 16 and 32 "did not match ... and were ignored". By the
#           tensors' names it has rank 8.
# So:       parameters and bytes are more than r says, and differ between two ways to name the same layer. Read the rank
#           from the layers, not from r.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import warnings

from peft import LoraConfig, get_peft_model
from transformers import MixtralConfig, MixtralForCausalLM

SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
WAYS = {
    "by the papers' names": {"target_modules": ["w1", "w2", "w3"]},
    "by the tensors' names": {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"], "target_modules": []},
}
for way, targets in WAYS.items():
    plain = MixtralForCausalLM(MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = get_peft_model(plain, LoraConfig(r=8, lora_alpha=16, **targets))
    ignored = sum("were ignored" in str(one.message) for one in told)
    ranks = {layer.parameter_name: layer.r["default"] for layer in model.modules() if hasattr(layer, "parameter_name")}
    print(way, dict(sorted(ranks.items())), f"'were ignored': {ignored}")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
by the papers' names {'down_proj': 8, 'gate_up_proj': 16} 'were ignored': 2
by the tensors' names {'down_proj': 8, 'gate_up_proj': 8} 'were ignored': 0
SEEN
echo "as written above"
