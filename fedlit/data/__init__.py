"""From files and hubs to checked rows, prompts, classes and batches."""
