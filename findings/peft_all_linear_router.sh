#!/usr/bin/env bash
# peft: target_modules="all-linear" adapts the router of a mixture of experts too, though it is no linear module.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    a small Mixtral, in which the router (mlp.gate) is a module of a class of its own with a weight, and
#           LoraConfig(target_modules="all-linear").
# Expected: factors at "all linear/Conv1D modules" but the output layer, as LoraConfig's documentation says.
# Seen:     factors at the router and at the experts' tensors as well, none of which is a torch.nn.Linear.
# So:       fine-tuning changes the router as well, which may be more than was meant. Name the layers instead.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
plain = MixtralForCausalLM(MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4))
linear = {name.rsplit(".", 1)[1] for name, layer in plain.model.named_modules() if isinstance(layer, nn.Linear)}
model = get_peft_model(plain, LoraConfig(r=8, target_modules="all-linear"))
factors = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
adapted = {name.removesuffix(".base_layer").rsplit(".", 1)[1] for name in factors}
print("linear:", *sorted(linear))
print("adapted:", *sorted(adapted))
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
linear: k_proj o_proj q_proj v_proj
adapted: experts gate k_proj o_proj q_proj v_proj
SEEN
echo "as written above"
