"""Rotations between factors of LoRA: B @ A = (B R)(R' A) for every orthogonal R (r, r)."""

import torch
from torch import Tensor


def procrustes(overlap: Tensor) -> Tensor:
    """Return the orthogonal R (r, r) with the largest trace(R' overlap): U V' of its SVD (Schoenemann, 1966)."""
    u, _, vh = torch.linalg.svd(overlap)
    rotation: Tensor = u @ vh
    return rotation
