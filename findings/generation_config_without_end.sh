#!/usr/bin/env bash
# transformers: a GenerationConfig that is saved beside a model has no end token unless it is given one, and wins.
#
# Packages: transformers 5.23.0 and torch 2.13.0, from the package index, Python 3.11 or newer.
# Input:    a small GPT-2 that always says its end token, number 3, saved; then GenerationConfig(max_new_tokens=6) is
#           saved into its folder, to set the length of answers.
# Expected: what the file does not say comes from config.json, which has eos_token_id 3, as it does without the file.
# Seen:     the loaded model's generation_config has no end token, and generate says token 3 six times, to the limit.
# So:       GenerationConfig.from_model_config(model.config), or give eos_token_id.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "transformers==5.23.0" "torch==2.13.0"
cat >"$work/test.py" <<'PYTHON'
import sys

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, GPT2Config, GPT2LMHeadModel

folder, end = sys.argv[1], 3
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=end, eos_token_id=end, tie_word_embeddings=False)
)
with torch.no_grad():  # the last hidden state is one direction, the output layer reads token 3 from it
    model.transformer.ln_f.weight.zero_()
    model.transformer.ln_f.bias.copy_(torch.eye(8)[0])
    model.lm_head.weight.zero_()
    model.lm_head.weight[end, 0] = 1
model.save_pretrained(folder)


def answer():
    """Return the loaded model's end token, and what it says after tokens 1 and 2."""
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    said = loaded.generate(torch.tensor([[1, 2]]), max_new_tokens=6, do_sample=False, pad_token_id=0)
    return loaded.generation_config.eos_token_id, said[0, 2:].tolist()


print("as saved by the model", *answer())
GenerationConfig(max_new_tokens=6).save_pretrained(folder)
print("with a config beside it", *answer())
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" "$work/model" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
as saved by the model 3 [3]
with a config beside it None [3, 3, 3, 3, 3, 3]
SEEN
echo "as written above"
