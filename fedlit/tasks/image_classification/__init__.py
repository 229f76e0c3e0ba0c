"""Image classification: the class of an image."""
