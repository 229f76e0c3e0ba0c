"""What one process is told: by its peers, by signals, by SLURM, by its memory."""
