"""What a launcher was told, held against the configuration, before torch is imported."""

from collections.abc import Mapping

from fedlit.config.schema import ComputeConfig
from fedlit.errors import UserError
from fedlit.process import slurm

PRECISION_ALIASES: Mapping[str, str] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}
"""Short names that `fabric run --precision` accepts."""


def check_launcher(environ: Mapping[str, str], compute: ComputeConfig) -> None:
    """Refuse what a launcher was told and the federation decides for itself, and SLURM tasks that are not one for each
    device, before torch is imported.

    `fabric run` hands its options on as LT_STRATEGY, LT_PRECISION, ... (lightning/fabric/cli.py).
    """
    if strategy := environ.get("LT_STRATEGY"):
        raise UserError(f"--strategy={strategy}: the federation brings its own strategy; leave out --strategy")
    asked = environ.get("LT_PRECISION", compute.precision)
    if PRECISION_ALIASES.get(asked, asked) != compute.precision:
        raise UserError(
            f"--precision={asked} disagrees with compute.precision={compute.precision}; "
            "leave out --precision and give compute.precision=<value> after the script"
        )
    if slurm.makes_processes(environ):
        _check_tasks(environ, compute)


def _check_tasks(environ: Mapping[str, str], compute: ComputeConfig) -> None:
    """Refuse SLURM tasks with which Fabric would hang, raise an error of its own or run another number of processes."""
    num_tasks, (per_node, num_nodes) = slurm.num_tasks(environ), slurm.task_shape(environ)
    wanted = compute.devices if compute.devices > 1 else per_node
    if num_tasks > 1 and not slurm.is_srun_task(environ):
        raise UserError(
            f"this is one process of an allocation of {num_tasks} SLURM tasks; "
            "start it with srun, or with fabric run for processes of its own"
        )
    if num_tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environ:
        raise UserError(
            f"SLURM started {num_tasks} tasks without a number per node; "
            f"use --ntasks-per-node={max(num_tasks // num_nodes, 1)} in place of --ntasks"
        )
    if num_tasks != per_node * num_nodes:
        raise UserError(
            f"SLURM started {num_tasks} tasks, not --ntasks-per-node={per_node} on each of {num_nodes} nodes; "
            "leave out srun's own --ntasks and --nodes"
        )
    if per_node != wanted:
        raise UserError(
            f"compute.devices={compute.devices} but SLURM starts {per_node} tasks on a node; "
            f"use srun --ntasks-per-node={wanted}, or leave out compute.devices"
        )
    if compute.num_nodes not in (1, num_nodes):
        raise UserError(
            f"compute.num_nodes={compute.num_nodes} but SLURM gives {num_nodes} nodes; "
            f"use sbatch --nodes={compute.num_nodes}, or leave out compute.num_nodes"
        )
