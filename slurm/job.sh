# What the job scripts in this folder share: each sources it and ends with `start SCRIPT ARGUMENTS`.
# shellcheck shell=bash

# The rendezvous of a run from whose terminal the job was submitted. Address and port of this one are the first node of
# the job and a number made of the whole SLURM_JOB_ID and the step; should two runs meet nevertheless, both refuse.
unset MASTER_ADDR MASTER_PORT RANK LOCAL_RANK GROUP_RANK NODE_RANK WORLD_SIZE LOCAL_WORLD_SIZE TORCHELASTIC_RUN_ID

# ---- your cluster: modules, Python, container, caches --------------------------------------------------------------
# module load cuda/12.4
if [[ -f .venv/bin/activate ]]; then source .venv/bin/activate; fi
python=(python)                      # in a container: python=(apptainer exec --nv fedlit.sif python)
# export HF_HOME=/shared/huggingface # models and data, where all nodes see them
# export HF_HUB_OFFLINE=1 WANDB_MODE=offline   # no internet on compute nodes: `fedlit fetch` before, `wandb sync` after
# export MASTER_ADDR=...             # where the names of nodes do not resolve
# export MASTER_PORT=...             # where a port of 12000 to 32010 is not open between nodes
# --------------------------------------------------------------------------------------------------------------------

export PYTHONUNBUFFERED=1
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"     # srun does not read #SBATCH --cpus-per-task
FEDLIT_JOB_LOG=$(readlink -f "/proc/$$/fd/1")             # where SLURM writes why it killed a job
export FEDLIT_JOB_LOG

# python stands directly under srun, and srun in the place of this shell: SLURM signals the direct children of its own
# daemon only, and a shell that waits for srun would die of the SIGTERM on which a run saves itself.
start() { exec srun --kill-on-bad-exit=1 "${python[@]}" "$@"; }
