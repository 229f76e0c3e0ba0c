#!/usr/bin/env bash
# transformers 5.23.0: every forward pass in training reads a value from the device, with an attention mask or without.
#
# Input:    a random Llama of one layer, sdpa attention, use_cache=False, two rows of 6 tokens: no mask, a mask of ones, and
#           a mask with padding on the right.
# Expected: no read: on a GPU each one makes the CPU wait for all that is queued, in every step.
# Seen:     one read without a mask (are several texts packed in a row?), one with a mask of ones, two with padding (may the
#           causal mask be left out?).
# So:       count the reads of a training step before you look for slow kernels; a mask does not save the wait.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PY'
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default}


class Count(TorchDispatchMode):
    reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.reads += func in READS
        return func(*args, **(kwargs or {}))


config = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
)
model = LlamaForCausalLM(config).train()
ids = torch.arange(12).view(2, 6)
ones = torch.ones_like(ids)
padded = ones.clone()
padded[1, 4:] = 0
seen = {}
for name, mask in {"no mask": None, "ones": ones, "padded": padded}.items():
    with Count() as count:
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    seen[name] = count.reads
print(seen)
assert seen == {"no mask": 1, "ones": 1, "padded": 2}, "the behaviour has changed"
PY
