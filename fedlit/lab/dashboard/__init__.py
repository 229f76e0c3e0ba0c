"""The runs of a sweep as a page: one HTML file that needs no network, or a workspace of Weights & Biases."""
