#!/usr/bin/env bash
# peft: overlapping patterns count in the order in which they were written, and in alphabetical order once they are saved.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    LoRA of rank 8 on the layers q and v with alpha_pattern={"v": 1, "[qv]": 3}: v has an entry of its own, and
#           the regular expression after it is for the rest.
# Expected: an adapter that is saved and loaded is the same adapter.
# Seen:     v is trained at scaling 1/8; save_pretrained sorts the keys of adapter_config.json, "[" comes before "v", and
#           the loaded adapter has 3/8 there, three times the effect, without a warning. With rank_pattern the same order
#           makes the files unloadable (size mismatch).
# So:       write patterns that exclude one another, such as "^q$" and "^v$", or compare a layer's scaling after loading.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import sys
import warnings
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

folder = Path(sys.argv[1])


def plain():
    """Return a model with two linear layers."""
    model = nn.Module()
    model.q, model.v = nn.Linear(16, 16), nn.Linear(16, 16)
    return model


def scalings(model):
    """Return the scaling of every layer."""
    return {name: layer.scaling["default"] for name, layer in model.base_model.model.named_children()}


def saved(name, **patterns):
    """Return a new adapter, which is in a folder now."""
    model = get_peft_model(plain(), LoraConfig(r=8, target_modules=["q", "v"], **patterns))
    model.save_pretrained(folder / name)
    return model


print("trained", scalings(saved("alpha", alpha_pattern={"v": 1, "[qv]": 3})))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    loaded = PeftModel.from_pretrained(plain(), folder / "alpha")
print("loaded ", scalings(loaded), f"warnings: {len(caught)}")
saved("rank", rank_pattern={"v": 4, "[qv]": 2})
try:
    PeftModel.from_pretrained(plain(), folder / "rank")
except RuntimeError as error:
    print("rank_pattern:", str(error).splitlines()[1].split(":")[0].strip())
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" "$work" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
trained {'q': 0.375, 'v': 0.125}
loaded  {'q': 0.375, 'v': 0.375} warnings: 0
rank_pattern: size mismatch for base_model.model.v.lora_A.default.weight
SEEN
echo "as written above"
