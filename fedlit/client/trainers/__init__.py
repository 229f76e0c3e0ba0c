"""Ways to train the clients of a process."""
