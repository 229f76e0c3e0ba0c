"""The environment of a user's fresh terminal: nothing of the test's own launcher, no network."""

import os

FOREIGN = ("SLURM_", "MASTER_", "LT_", "WANDB_", "TORCHELASTIC_", "OMP_NUM_THREADS")
"""Beginnings of variables that launchers and other runs leave."""


def fresh_environment(*others: str) -> dict[str, str]:
    """Return this process's environment without what launchers left, and without variables that begin with `others`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith((*FOREIGN, *others))}
    return {**clean, "HF_HUB_OFFLINE": "1", "WANDB_ERROR_REPORTING": "false"}
