"""How well the task gradients can be told apart: condition numbers, effective rank, balance."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlsk.gramian import condition_number, cosines, effective_rank


def cosine_condition_number(gramian: Tensor) -> float:
    """Return kappa(C) of the cosines C_ij = G_ij / (|g_i| |g_j|): angles only, lengths left out.

    kappa(C) is within a factor K of the smallest kappa that any task scales can reach (van der
    Sluis 1969). Tasks with a zero gradient are left out.

    **Reference** CANON, doi 10.5281/zenodo.19454888 (its controller watches this one).
    """
    return condition_number(cosines(gramian))


def ridge_condition_number(gramian: Tensor, ridge: float) -> float:
    """Return kappa(G + ridge I) = (lambda_max + ridge) / (lambda_min + ridge), of all K tasks.

    Parameters
    ----------
    gramian : tensor of shape (K, K)
    ridge : float
        Above 0, in the unit of G: squared gradient norms, (loss / parameter)^2.

    Raises
    ------
    ValueError
        If ``ridge`` is not positive and finite.
    """
    if not 0 < ridge < float("inf"):
        raise ValueError(
            f"ridge={ridge!r} is not allowed; it is a squared gradient norm above 0, for example "
            "0.01 * G.trace() / K; without a ridge take condition_number(G)"
        )
    eigenvalues = torch.linalg.eigvalsh(gramian).clamp_min(0)
    return (float(eigenvalues[-1]) + ridge) / (float(eigenvalues[0]) + ridge)


def effective_tasks(gramian: Tensor) -> float:
    """Return the effective rank of the cosines: how many different directions the tasks have.

    exp(-sum_i p_i ln p_i), p the eigenvalues of C over their sum: K for orthogonal gradients, 1
    for parallel (or opposite) ones, 0 where all gradients are zero.

    **Reference** Roy and Vetterli, EUSIPCO 2007, for C (ours).
    """
    keep = gramian.diagonal() > 0
    return effective_rank(cosines(gramian[keep][:, keep])) if bool(keep.any()) else 0.0


def balancing_scale(gramian: Tensor) -> Tensor:
    """Return s (K,) ~ 1/|g_k| with mean 1: task scales under which all gradients are of one length.

    They bring kappa within a factor K of the best diagonal scaling. A task with a zero gradient
    gets 1. (Ours; weights 1/L_k, as in the source, balance losses, not gradients.)
    """
    norms = gramian.diagonal().clamp_min(0).sqrt()
    there = norms > 0
    inverse = torch.where(there, 1 / norms.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    mean = inverse[there].mean() if bool(there.any()) else 1.0
    scale = torch.where(there, inverse / mean, 1.0)
    return scale * len(scale) / scale.sum()
