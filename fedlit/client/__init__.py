"""What a client does in a round: its state in the model, its local steps, what it sends."""
