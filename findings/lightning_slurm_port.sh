#!/usr/bin/env bash
# lightning.fabric on SLURM: processes of two jobs form one process group when the ends of their job ids agree.
#
# Packages: lightning 2.6.6 and torch 2.13.0 (the CPU build will do), from the package index, Python 3.11 or newer.
# Input:    task 0 of 2 of job 1230007 and task 1 of 2 of job 1240007, both with 127.0.0.1 as their first node, as two
#           jobs of 2 tasks on one node would have it; SLURM's variables are set by hand. Each process adds up its job's id.
# Expected: each job waits for its own second task, or says that the port is taken.
# Seen:     the port is 15000 plus the last four digits of SLURM_JOB_ID, 15007 for both; they form one group of two, and
#           the sum of 1230007 and 1240007 arrives at both without a word. Nothing compares who belongs to which job.
# So:       two runs of equal sizes on one node can train as one. Choose MASTER_PORT from the whole job id, and compare
#           a token of the run in the first collective.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.13.0" "lightning==2.6.6"
cat >"$work/task.py" <<'PYTHON'
import os

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import SLURMEnvironment

fabric = Fabric(accelerator="cpu", devices=int(os.environ["SLURM_NTASKS_PER_NODE"]), num_nodes=1, strategy="ddp")
fabric.launch()
total = fabric.all_reduce(torch.tensor(float(os.environ["SLURM_JOB_ID"])), reduce_op="sum")
port = SLURMEnvironment().main_port
print(f"job {os.environ['SLURM_JOB_ID']} task {fabric.global_rank} of {fabric.world_size}, port {port}: {total:.0f}")
PYTHON
task() {
  env -u MASTER_PORT -u MASTER_ADDR SLURM_JOB_ID="$1" SLURM_PROCID="$2" SLURM_LOCALID="$2" SLURM_NODEID=0 \
    SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 SLURM_JOB_NAME=train SLURM_NODELIST=127.0.0.1 SLURM_JOB_NODELIST=127.0.0.1 \
    MASTER_ADDR=127.0.0.1 timeout 120 "$work/venv/bin/python" "$work/task.py" 2>/dev/null
}
task 1230007 0 >"$work/first" &
first=$!
task 1240007 1 >"$work/second"
wait "$first"
grep -h ^job "$work/first" "$work/second" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
job 1230007 task 0 of 2, port 15007: 2470014
job 1240007 task 1 of 2, port 15007: 2470014
SEEN
echo "as written above"
