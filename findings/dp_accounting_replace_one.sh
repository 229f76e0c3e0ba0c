#!/usr/bin/env bash
# dp-accounting: under REPLACE_ONE the PLD accountant doubles the sensitivity of a Gaussian, and the RDP one does not.
#
# Packages: dp-accounting 0.6.0, from the package index, Python 3.11 or newer.
# Input:    one GaussianDpEvent of noise multiplier 1 at delta 1e-5, by both accountants, for both relations.
# Expected: under each relation two upper bounds of one number: RDP's a little larger than PLD's. The exact epsilon of a
#           Gaussian is 4.377 where the sum changes by 1, and 9.997 where it changes by 2.
# Seen:     under REPLACE_ONE, PLD says 9.997 and RDP 4.729: PLD takes noise against what one unit adds, RDP against
#           the change of the sum.
# So:       whoever exchanges the accountant exchanges the meaning of the noise multiplier. With RDP and REPLACE_ONE,
#           halve it where a unit in the place of another moves the sum by twice what one can add.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "dp-accounting==0.6.0"
cat >"$work/test.py" <<'PYTHON'
import dp_accounting
from dp_accounting import pld, rdp

RELATIONS = dp_accounting.NeighboringRelation
for change in (1, 2):
    print(f"exact, a change of {change}: {dp_accounting.get_epsilon_gaussian(1 / change, 1e-5):.3f}")
for relation in (RELATIONS.ADD_OR_REMOVE_ONE, RELATIONS.REPLACE_ONE):
    for name, kind in (("PLD", pld.PLDAccountant), ("RDP", rdp.RdpAccountant)):
        accountant = kind(neighboring_relation=relation).compose(dp_accounting.GaussianDpEvent(1.0))
        print(f"{relation.name} {name}: {accountant.get_epsilon(1e-5):.3f}")
PYTHON
"$work/venv/bin/python" "$work/test.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
exact, a change of 1: 4.377
exact, a change of 2: 9.997
ADD_OR_REMOVE_ONE PLD: 4.377
ADD_OR_REMOVE_ONE RDP: 4.729
REPLACE_ONE PLD: 9.997
REPLACE_ONE RDP: 4.729
SEEN
echo "as written above"
