#!/usr/bin/env bash
# NVFlare: FedAvg adds weight times value in the type in which the tensors travel.
#
# Packages: nvflare 2.9.0 with torch 2.13.0, from the package index, Python 3.11 or newer.
# Input:    results of sites that all hold the same number, through FedAvg.aggregate_fn: bfloat16 with equal weights, float16
#           with NUM_STEPS_CURRENT_ROUND, for which NVFlare's interface for Hugging Face trainers takes numbers of tokens.
# Expected: the mean of equal numbers is that number.
# Seen:     bfloat16: a sum that has come to 256 times the number no longer grows, so 512 sites give half of it, 1000 a
#           quarter; 100 sites with .3008 are 7 percent below. float16: two sites with 1.0 and 40,000 tokens each give
#           infinity. No warning. The running sum of the workflow, WeightedAggregationHelper, is the same one.
# So:       send float32 to a FedAvg of NVFlare, whatever the model trains in; or give it an aggregator of one's own, as the
#           apps of `fedlit export --to nvflare` do.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "nvflare==2.9.0" "torch==2.13.0"
cat >"$work/test.py" <<'PYTHON'
import torch
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg


def mean(value, dtype, num_sites, weight=None):
    """Return NVFlare's mean of sites that all have one value."""
    meta = {} if weight is None else {"NUM_STEPS_CURRENT_ROUND": weight}
    sites = [FLModel(params={"w": torch.tensor([value], dtype=dtype)}, meta=dict(meta)) for _ in range(num_sites)]
    return FedAvg.aggregate_fn(sites).params["w"].item()


for num_sites in (100, 256, 512, 1000):
    print(f"bfloat16, {num_sites} sites with 1.0: {mean(1.0, torch.bfloat16, num_sites):.4f}")
print(f"bfloat16, 100 sites with 0.3008: {mean(0.30078125, torch.bfloat16, 100):.4f}")
for weight in (100, 10_000, 40_000):
    print(f"float16, 2 sites with 1.0, weight {weight}: {mean(1.0, torch.float16, 2, weight)}")
print(f"float32, 1000 sites with 1.0, weight 40000: {mean(1.0, torch.float32, 1000, 40_000)}")
PYTHON
"$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
bfloat16, 100 sites with 1.0: 1.0000
bfloat16, 256 sites with 1.0: 1.0000
bfloat16, 512 sites with 1.0: 0.5000
bfloat16, 1000 sites with 1.0: 0.2559
bfloat16, 100 sites with 0.3008: 0.2793
float16, 2 sites with 1.0, weight 100: 1.0
float16, 2 sites with 1.0, weight 10000: 1.0
float16, 2 sites with 1.0, weight 40000: inf
float32, 1000 sites with 1.0, weight 40000: 1.0
SEEN
echo "as written above"
