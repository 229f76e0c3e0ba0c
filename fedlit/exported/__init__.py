"""The result of a run folder put to use: merged into one model, asked on a terminal, sent to the hub."""
