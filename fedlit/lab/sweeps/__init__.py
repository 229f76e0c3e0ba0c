"""The cells of a sweep as runs: how each stands, run on this machine, or handed to SLURM."""
