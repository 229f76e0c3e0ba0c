#!/usr/bin/env bash
# A federation as an app of Flower, in Flower's own simulator and on nodes with rows of their own, to the bit of
# `fedlit run`: see flower_bits.py.
#
#   tests/interop/flower.sh [VENV] [WORK]
#
# VENV (default: build/interop/flower-venv) is made if it is not there, with this checkout installed as a wheel; WORK
# (default: build/interop/flower) is emptied. INTEROP_INSTALLED=1 leaves the environment as it is. One to two minutes for
# each of six federations, on two cores.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
venv="${1:-$root/build/interop/flower-venv}"
work="${2:-$root/build/interop/flower}"
if [[ -z "${INTEROP_INSTALLED:-}" ]]; then
    "${PYTHON:-python3}" -m venv "$venv"
    # Flower wants older versions of some libraries than constraints.txt has: those of which bits depend alone are taken.
    "$venv/bin/pip" install --quiet --no-compile \
        -c <(grep -E '^(torch|transformers|tokenizers|peft|lightning|numpy|datasets)==' "$root/constraints.txt") \
        "flwr[simulation]==1.41.0" "$root"
fi
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=disabled TOKENIZERS_PARALLELISM=false
exec "$venv/bin/python" "$root/tests/interop/flower_bits.py" "$work"
