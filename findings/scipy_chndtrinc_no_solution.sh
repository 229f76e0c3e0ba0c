#!/usr/bin/env bash
# scipy: the noncentrality of a chi-squared that does not exist is told as a denormal number, not as NaN.
#
# Packages: scipy 1.17.1, which brings numpy, from the package index, Python 3.11 or newer.
# Input:    chndtrinc(x, df, p): for which noncentrality is P(X <= x) = p? Of 4 degrees of freedom, at x = 2, P is 0.264
#           without noncentrality and smaller with any, so that p = 0.5 has no solution.
# Expected: NaN, as chdtri(4, 1.5) gives for a probability that no x has.
# Seen:     2.652e-315, a denormal whose digits are no function of x or p, without a warning; put back in, P is 0.264
#           and not 0.5. errstate(all="raise") calls it an underflow, no domain error. Where a solution exists it is
#           right to 1e-12.
# So:       compare p with chdtr(df, x) first; below it the noncentrality is 0, as in interval estimates of variance
#           components and of effect sizes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "scipy==1.17.1"
cat >"$work/test.py" <<'PYTHON'
import warnings

import numpy as np
from scipy import special

warnings.simplefilter("error")
print("chdtri(4, 1.5):", special.chdtri(4, 1.5))
assert np.isnan(special.chdtri(4, 1.5))

there = special.chndtrinc(2.0, 4, 0.01)
print("p = 0.01:", there, "and back", special.chndtr(2.0, 4, there))
assert abs(special.chndtr(2.0, 4, there) - 0.01) < 1e-12

found = [special.chndtrinc(x, 4, p) for x, p in ((2.0, 0.5), (2.0, 0.9), (0.5, 0.5), (5.0, 0.99))]
print("no solution:", found, "and back", special.chndtr(2.0, 4, found[0]), "for 0.5")
assert len(set(found)) == 1 and 0 < found[0] < np.finfo(float).tiny
assert abs(special.chndtr(2.0, 4, found[0]) - special.chdtr(4, 2.0)) < 1e-12
with special.errstate(all="raise"):
    try:
        special.chndtrinc(2.0, 4, 0.5)
    except special.SpecialFunctionError as error:
        print("asked to raise:", error)
        assert "underflow" in str(error)
print("as described")
PYTHON
"$work/venv/bin/python" "$work/test.py"
