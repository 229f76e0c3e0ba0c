#!/usr/bin/env bash
# transformers: a weight stored as int8 is taken for a float weight of the same name, without a word.
#
# Packages: transformers 5.23.0, torch 2.13.0 and safetensors 0.8.0, from the package index, Python 3.11 or newer.
# Input:    a small Llama, saved; then one projection in its file is replaced by round(127 * w / max|w|) as int8, as
#           quantising tools store it, and the scale is left out. config.json has no quantization_config.
# Expected: from_pretrained refuses an integer tensor for a float weight, or warns.
# Seen:     it loads; missing, unexpected and mismatched keys are empty; the weight is float32 with values up to 127, and
#           the model computes with it.
# So:       a quantised checkpoint that lost its configuration trains from nonsense. Look at the types in the headers of
#           the files before loading.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.13.0" "transformers==5.23.0" "safetensors==0.8.0"
cat >"$work/test.py" <<'PYTHON'
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(sys.argv[1])
path, name = f"{sys.argv[1]}/model.safetensors", "model.layers.0.self_attn.q_proj.weight"
tensors = load_file(path)
tensors[name] = (127 * tensors[name] / tensors[name].abs().max()).round().to(torch.int8)
save_file(tensors, path, metadata={"format": "pt"})
model, report = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
weight = dict(model.named_parameters())[name]
print({key: len(report[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")})
print(weight.dtype, int(weight.abs().max()))
PYTHON
"$work/venv/bin/python" "$work/test.py" "$work/model" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
{'missing_keys': 0, 'unexpected_keys': 0, 'mismatched_keys': 0}
torch.float32 127
SEEN
echo "as written above"
