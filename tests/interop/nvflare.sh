#!/usr/bin/env bash
# A federation as an app of NVFlare, in NVFlare's own simulator and deployed, to the bit of `fedlit run`: see nvflare_bits.py.
#
#   tests/interop/nvflare.sh [VENV] [WORK [FEDERATION...]]
#
# VENV (default: build/interop/nvflare-venv) is made if it is not there, with this checkout installed as a wheel; WORK
# (default: build/interop/nvflare) is emptied. INTEROP_INSTALLED=1 leaves the environment as it is. One or two
# minutes for each of six federations, on two cores.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
venv="${1:-$root/build/interop/nvflare-venv}"
work="${2:-$root/build/interop/nvflare}"
if [[ -z "${INTEROP_INSTALLED:-}" ]]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-compile -c "$root/constraints.txt" "nvflare==2.9.0" "$root"
fi
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=disabled TOKENIZERS_PARALLELISM=false
exec "$venv/bin/python" "$root/tests/interop/nvflare_bits.py" "$work" "${@:3}"
