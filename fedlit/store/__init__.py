"""What a run leaves on disk: its folder, lock, status, checkpoints, result."""
