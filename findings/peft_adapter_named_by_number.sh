#!/usr/bin/env bash
# peft: adapters that are named "0", "1" and "2" are saved without the layers of the other numbers.
#
# Packages: peft 0.21.2 with torch 2.13.0 and transformers 5.23.0, from the package index, Python 3.11 or newer.
# Input:    a model with layers.0, layers.1 and layers.2, and three LoRA adapters on all of them, named after clients.
# Expected: save_pretrained writes three adapters of three layers each.
# Seen:     what has another adapter's name in its key is left out, and "layers.1" has: adapter "0" is saved with layer 0
#           alone. Nothing is said until it is loaded, where a warning tells of missing keys and the layers stay new.
# So:       trained weights are lost. Give adapters names with letters, such as "client-0".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "peft==0.21.2" "torch==2.13.0" "transformers==5.23.0"
cat >"$work/test.py" <<'PYTHON'
import sys
import warnings

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn


def plain():
    """Return a model with three linear layers."""
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
    return model


for names in (["a", "b", "c"], ["0", "1", "2"]):
    config = LoraConfig(r=4, target_modules=r"layers\.\d")
    model = get_peft_model(plain(), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    with warnings.catch_warnings(record=True) as saving:
        warnings.simplefilter("always")
        model.save_pretrained(sys.argv[1])
    keys = [list(load_file(f"{sys.argv[1]}/{name}/adapter_model.safetensors")) for name in names]
    layers = [sorted({key.split(".")[3] for key in each}) for each in keys]
    with warnings.catch_warnings(record=True) as loading:
        warnings.simplefilter("always")
        PeftModel.from_pretrained(plain(), f"{sys.argv[1]}/{names[0]}")
    print("layers of", dict(zip(names, layers)), f"warnings: {len(saving)} at saving, {len(loading)} at loading")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" "$work/test.py" "$work/adapters" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
layers of {'a': ['0', '1', '2'], 'b': ['0', '1', '2'], 'c': ['0', '1', '2']} warnings: 0 at saving, 0 at loading
layers of {'0': ['0'], '1': ['1'], '2': ['2']} warnings: 0 at saving, 1 at loading
SEEN
echo "as written above"
