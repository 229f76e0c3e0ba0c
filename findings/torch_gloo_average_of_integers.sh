#!/usr/bin/env bash
# torch.distributed over gloo: AVG of integers raises an error, and leaves the sum in the tensor.
#
# Packages: torch 2.13.0 (the CPU build will do), from the package index, Python 3.11 or newer.
# Input:    two processes with the integers 10 and 11 (int64) call all_reduce(op=ReduceOp.AVG), catch the error, and call
#           all_reduce(op=ReduceOp.SUM) instead, to divide the result themselves.
# Expected: AVG of integers is refused with the tensor as it was, so that the sum is 21; or it is an average.
# Seen:     the error comes when the all-reduce is done already: the tensor holds 21, and the sum that follows is 42.
# So:       whoever falls back from AVG to SUM counts everything twice (n times of n processes). Ask for SUM at once.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"
cat >"$work/test.py" <<'PYTHON'
import sys

import torch
import torch.distributed as distributed

rank, place = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
number = torch.tensor([10 + rank])
try:
    distributed.all_reduce(number, op=distributed.ReduceOp.AVG)
except RuntimeError as error:
    print(f"process {rank}: {error}")
print(f"process {rank}: after AVG {number.item()}")
distributed.all_reduce(number, op=distributed.ReduceOp.SUM)
print(f"process {rank}: after SUM {number.item()}")
distributed.barrier()
distributed.destroy_process_group()
PYTHON
timeout 120 "$work/venv/bin/python" -W ignore "$work/test.py" 0 "$work/meet" >"$work/first" 2>/dev/null &
first=$!
timeout 120 "$work/venv/bin/python" -W ignore "$work/test.py" 1 "$work/meet" >"$work/second" 2>/dev/null
wait "$first"
cat "$work/first" "$work/second" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
process 0: result type Float can't be cast to the desired output type Long
process 0: after AVG 21
process 0: after SUM 42
process 1: result type Float can't be cast to the desired output type Long
process 1: after AVG 21
process 1: after SUM 42
SEEN
echo "as written above"
