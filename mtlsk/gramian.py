"""Pure functions of a Gramian G = J J^T of task gradients, shape (K, K), float64 on the CPU.

:func:`effective_rank` takes any matrix.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps


def cosines(gramian: Tensor) -> Tensor:
    """Return cos(g_i, g_j) = G_ij / (|g_i| |g_j|), shape (..., K, K); rows of zeros stay 0."""
    norms = gramian.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    scale = torch.where(norms > 0, 1 / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    return (gramian * scale.unsqueeze(-1) * scale.unsqueeze(-2)).clamp(-1.0, 1.0)


def min_cosine(gramian: Tensor) -> Tensor:
    """Return the smallest cosine between two different non-zero task gradients, shape (...).

    For Gramians of shape (..., K, K); 1 where there are fewer than two such gradients.
    """
    there = gramian.diagonal(dim1=-2, dim2=-1) > 0
    pairs = there.unsqueeze(-1) & there.unsqueeze(-2)
    pairs &= ~torch.eye(gramian.shape[-1], dtype=torch.bool)
    return torch.where(pairs, cosines(gramian), 1.0).flatten(-2).amin(-1)


def condition_number(gramian: Tensor) -> float:
    """Return kappa(G) = lambda_max / lambda_min, at most 1 / (K eps) (a singular G), 1 for G = 0.

    Tasks whose gradient is zero are dropped first: they have no direction to be conditioned.
    """
    keep = gramian.diagonal() > 0
    if not bool(keep.any()):
        return 1.0
    eigenvalues = torch.linalg.eigvalsh(gramian[keep][:, keep])
    largest = float(eigenvalues[-1])
    floor = len(eigenvalues) * EPS * largest
    return largest / max(float(eigenvalues[0]), floor)


def effective_rank(matrix: Tensor) -> float:
    """Return exp(-sum_i p_i ln p_i), p_i = sigma_i / sum sigma, of a matrix's singular values.

    It is r for r equal singular values and others of 0, and 0 for a zero matrix; NaN for a matrix
    that is not finite.

    **Reference** Roy and Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007.
    """
    values = matrix.detach().double().cpu()
    if not bool(values.isfinite().all()):
        return math.nan
    sigma = torch.linalg.svdvals(values)
    total = float(sigma.sum())
    return float(torch.special.entr(sigma / total).sum().exp()) if total > 0 else 0.0


def mean_weights(like: Tensor) -> Tensor:
    """Return w0 = 1/K for each of the K rows of ``like``, shape (K,), of its dtype and device."""
    return torch.full((len(like),), 1 / len(like), dtype=like.dtype, device=like.device)
