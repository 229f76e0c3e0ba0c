#!/usr/bin/env bash
# A result on its way through other people's tools and back, in an environment of its own: see round_trip.py.
#
#   tests/interop/run.sh [VENV] [WORK]
#
# VENV (default: build/interop/venv) is made if it is not there, with this checkout installed as a wheel; WORK (default:
# build/interop/work) is emptied. INTEROP_INSTALLED=1 leaves the environment as it is.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
venv="${1:-$root/build/interop/venv}"
work="${2:-$root/build/interop/work}"
if [[ -z "${INTEROP_INSTALLED:-}" ]]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-compile -c "$root/constraints.txt" -r "$root/tests/interop/requirements.txt" "$root"
fi
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=disabled TOKENIZERS_PARALLELISM=false
exec "$venv/bin/python" "$root/tests/interop/round_trip.py" "$work"
