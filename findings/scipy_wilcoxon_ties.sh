#!/usr/bin/env bash
# scipy.stats.wilcoxon, the test behind "is method A better than B over these seeds", on differences of equal size.
#
# Packages: scipy 1.14.1 and 1.17.1 from the package index, Python 3.11 or newer.
# Input:    the differences 1, 1, 2, 2, 3, -1, two-sided; the smallest ones are ties, as scores of few examples often are.
# Expected: of the 2**6 equally likely ways to set the signs, 8 have a rank sum at least as extreme: p = 8/64 = 0.125.
# Seen:     scipy 1.14.1 says 0.09375 without a word (it takes the table for data without ties); 1.17.1 says 0.125, but
#           0.09375 again, and again without a warning, when it is asked for method="exact".
# So:       a p-value "by scipy" depends on its version and on an option whose name promises the opposite.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for version in 1.14.1 1.17.1; do
  "$work/venv/bin/pip" install --quiet --target "$work/scipy-$version" "scipy==$version"
done
cat >"$work/test.py" <<'PYTHON'
import itertools
import warnings

import scipy
from scipy.stats import rankdata, wilcoxon

differences = [1, 1, 2, 2, 3, -1]
ranks = rankdata([abs(value) for value in differences])
middle = sum(ranks) / 2
distance = abs(sum(rank for rank, value in zip(ranks, differences) if value > 0) - middle)
signs = list(itertools.product([0, 1], repeat=len(ranks)))
extreme = [one for one in signs if abs(sum(rank * sign for rank, sign in zip(ranks, one)) - middle) >= distance]
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    automatic, exact = (float(wilcoxon(differences, method=method).pvalue) for method in ("auto", "exact"))
print(scipy.__version__, "all signs", len(extreme) / len(signs), "auto", automatic, "exact", exact, "warnings", len(told))
PYTHON
for version in 1.14.1 1.17.1; do
  PYTHONPATH="$work/scipy-$version" "$work/venv/bin/python" "$work/test.py"
done | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
1.14.1 all signs 0.125 auto 0.09375 exact 0.09375 warnings 0
1.17.1 all signs 0.125 auto 0.125 exact 0.09375 warnings 0
SEEN
echo "as written above"
