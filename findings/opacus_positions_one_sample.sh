#!/usr/bin/env bash
# opacus: a position embedding that is broadcast over the batch is clipped as one sample, not row by row.
#
# Packages: opacus 1.6.0 with torch 2.13.0, from the package index, Python 3.11 or newer.
# Input:    words + positions as in GPT-2, nn.Embedding of ids (5, 6) and nn.Embedding of positions (1, 6); the positions
#           alone train. A batch of 5 rows, max_grad_norm=1, no noise. The rows' gradients are far longer than 1.
# Expected: 5 gradients of single rows, each clipped to 1, and their sum over 5. A loop over rows gives a step of norm 0.86.
# Seen:     grad_sample has the shape (1, 6, 4), the sum over the batch. It is clipped to 1 as if it were one row's, and
#           divided by 5: a step of norm 0.2. No error and no warning.
# So:       a step is not that of DP-SGD, and too short by up to the batch size. Expand the positions to the batch
#           before the embedding, or leave it frozen.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "opacus==1.6.0" "torch==2.13.0"
cat >"$work/test.py" <<'PYTHON'
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.positions, self.head = nn.Embedding(10, 4), nn.Embedding(6, 4), nn.Linear(4, 1)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1])[None]
        return 1000 * self.head(torch.tanh(self.words(ids) + self.positions(positions))).mean((1, 2))


torch.manual_seed(0)
model = Model()
model.words.requires_grad_(False)
model.head.requires_grad_(False)
ids = torch.randint(10, (5, 6))
weight = model.positions.weight
rows = [torch.autograd.grad(model(ids[row : row + 1]).sum(), weight)[0] for row in range(5)]
wanted = sum(row / max(1.0, float(row.norm())) for row in rows) / 5

model, optimizer, loader = PrivacyEngine().make_private(
    module=model,
    optimizer=torch.optim.SGD([weight], lr=1.0),
    data_loader=DataLoader(TensorDataset(ids), batch_size=5),
    noise_multiplier=0.0,
    max_grad_norm=1.0,
    poisson_sampling=False,
)
for (batch,) in loader:
    optimizer.zero_grad()
    model(batch).sum().backward()
    shape = tuple(weight.grad_sample.shape)
    optimizer.step()
print(f"a loop over rows: norm {wanted.norm():.2f}")
print(f"opacus: norm {weight.grad.norm():.2f}, gradients of samples {shape}")
PYTHON
"$work/venv/bin/python" -W ignore "$work/test.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
a loop over rows: norm 0.86
opacus: norm 0.20, gradients of samples (1, 6, 4)
SEEN
echo "as written above"
