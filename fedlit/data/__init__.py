"""From rows to shards: sources, prompts, partition and the split of every client's rows into training and test."""
