#!/usr/bin/env bash
# peft: merging a LoRA on embeddings that are tied to the output head changes the head too.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    a small Llama with tie_word_embeddings=True and LoRA on embed_tokens; once with the default
#           ensure_weight_tying=False, once with True, which puts factors at the head as well.
# Expected: merge_and_unload gives the model that the adapter gave, or an error.
# Seen:     the change is added to the one tensor that both are, and with True a second time. The logits of the merged
#           model differ from the adapter's by more than the adapter changes them. A warning speaks of "complications".
# So:       do not merge such an adapter, or untie the head first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
SIZES = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
for tying in (False, True):
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **SIZES)).eval()
    tokens = torch.arange(10)[None]
    before = plain(tokens).logits.detach()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["embed_tokens"], ensure_weight_tying=tying)
    model = get_peft_model(plain, config).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.05 * torch.randn_like(parameter)
    adapted = model(tokens).logits.detach()
    merged = model.merge_and_unload()(tokens).logits.detach()
    effect, beside = (adapted - before).norm(), (merged - adapted).norm()
    print(f"ensure_weight_tying={tying}: the adapter changes the logits by {effect:.1f}, merging by another {beside:.1f}")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
ensure_weight_tying=False: the adapter changes the logits by 1.7, merging by another 2.5
ensure_weight_tying=True: the adapter changes the logits by 2.2, merging by another 3.2
SEEN
echo "as written above"
