#!/usr/bin/env bash
# opacus: make_private changes the batch size that a loader asks for where it does not divide the number of rows.
#
# Packages: opacus 1.6.0 with torch 2.13.0, from the package index, Python 3.11 or newer.
# Input:    a DataLoader with batch_size=4 over 10, 3 and 12 rows, given to PrivacyEngine.make_private.
# Expected: Poisson batches of 4 rows in the mean: each row is drawn with the rate 4/10, and 4/12; of 3 rows all are in
#           every batch.
# Seen:     the rate is 1 / len(loader), and the expected batch int(rows * rate). Of 10 rows: rate 1/3, 3 rows expected.
#           12 rows get what is asked for. No word of it.
# So:       steps, noise per row and epsilon are those of another batch size. Compute the rate from the batch size, or
#           take a batch size that divides the number of rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "opacus==1.6.0" "torch==2.13.0"
cat >"$work/test.py" <<'PYTHON'
import torch
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset

for num_rows in (10, 3, 12):
    model = torch.nn.Linear(2, 1)
    _, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(torch.zeros(num_rows, 2)), batch_size=4),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    print(f"{num_rows} rows, batch_size=4: rate {loader.sample_rate:.4f}, expected batch {optimizer.expected_batch_size}")
PYTHON
"$work/venv/bin/python" -W ignore "$work/test.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
10 rows, batch_size=4: rate 0.3333, expected batch 3
3 rows, batch_size=4: rate 1.0000, expected batch 3
12 rows, batch_size=4: rate 0.3333, expected batch 4
SEEN
echo "as written above"
