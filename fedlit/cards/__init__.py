"""What lies beside the weights of a result, so that somebody else can use it: its facts, its prompt, its model card."""
