#!/usr/bin/env bash
# torch: optimizer.load_state_dict casts integers and booleans of its state to the parameter's type.
#
# Packages: torch 2.13.0, from the package index, Python 3.11 or newer.
# Input:    a bfloat16 parameter whose state holds a count (int64, 301), a mask (bool) and "step" (float32, 301); the
#           state_dict is loaded into a second optimizer of the same kind.
# Expected: the state as it was saved; a cast of floating-point state to the parameter's type at most.
# Seen:     the count is bfloat16 and 300, the mask 1, 0, 1 in bfloat16. Only the key "step" is left alone. This is so for
#           every parameter of floating point; with float32 it shows from 16,777,217 on.
# So:       an optimizer with counts or masks of its own is another one after a resume. Keep integers in param_groups or
#           under "step", or put them back after loading.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.13.0"
cat >"$work/test.py" <<'PYTHON'
import torch

parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
first, second = (torch.optim.SGD([parameter], lr=0.1) for _ in range(2))
first.state[parameter] = {
    "count": torch.tensor(301),
    "mask": torch.tensor([True, False, True]),
    "step": torch.tensor(301.0),
}
second.load_state_dict(first.state_dict())
for name, saved in first.state[parameter].items():
    loaded = second.state[parameter][name]
    print(f"{name}: {saved.tolist()} {saved.dtype} -> {loaded.tolist()} {loaded.dtype}")
PYTHON
"$work/venv/bin/python" -W ignore "$work/test.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
count: 301 torch.int64 -> 300.0 torch.bfloat16
mask: [True, False, True] torch.bool -> [1.0, 0.0, 1.0] torch.bfloat16
step: 301.0 torch.float32 -> 301.0 torch.float32
SEEN
echo "as written above"
