"""What a run's records show: plots and figures that need neither a model nor a process group."""
