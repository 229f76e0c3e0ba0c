#!/usr/bin/env bash
# torch.distributions.Dirichlet: at a very small concentration half of the draws are exactly uniform, not one-sided.
#
# Packages: torch 2.13.0 and numpy 2.4.6, from the package index, Python 3.11 or newer.
# Input:    2,000 draws over 10 classes with all concentrations 1e-4, and 1e-3, in float64, seed 0; beside NumPy's.
# Expected: the smaller the concentration, the nearer each draw is to a single class: at 1e-4 the largest share is about
#           1 in nearly all draws.
# Seen:     at 1e-4 about half of torch's draws are exactly 1/10 in every class, in float64 as in float32; the mean of
#           the largest share falls from 0.99 (at 1e-3) to 0.55. NumPy's is 0.99 and 1.00. No warning.
# So:       a federation that is dealt with torch at a tiny alpha, in order to be as skewed as can be, is half alike.
#           Draw in logarithms, or with NumPy.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"
cat >"$work/test.py" <<'PYTHON'
import numpy
import torch

CLASSES, DRAWS = 10, 2000
torch.manual_seed(0)
generator = numpy.random.default_rng(0)
for alpha in (1e-3, 1e-4):
    concentration = torch.full((CLASSES,), alpha, dtype=torch.float64)
    drawn = {
        "torch": torch.distributions.Dirichlet(concentration).sample((DRAWS,)).numpy(),
        "numpy": generator.dirichlet([alpha] * CLASSES, DRAWS),
    }
    for name, shares in drawn.items():
        uniform = float((shares == shares[:, :1]).all(1).mean())
        print(f"{name} {alpha:g}: uniform {uniform:.1f} of the draws, largest share {shares.max(1).mean():.2f}")
PYTHON
"$work/venv/bin/python" "$work/test.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
torch 0.001: uniform 0.0 of the draws, largest share 0.99
numpy 0.001: uniform 0.0 of the draws, largest share 0.99
torch 0.0001: uniform 0.5 of the draws, largest share 0.55
numpy 0.0001: uniform 0.0 of the draws, largest share 1.00
SEEN
echo "as written above"
