"""Named tensors, LoRA layers and products of thin factors."""
