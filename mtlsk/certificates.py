"""Certificates: pure functions of task gradients and losses that say what can be relied on.

Phi_k = L_k throughout: the task losses themselves, non-negative and smooth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mtlsk.gramian import mean_weights
from mtlsk.simplex import shortest_increase


def h(losses: Tensor) -> float:
    """Return h = (1/K) sum_k L_k^2, the objective of the CANON certificates; in loss units squared.

    **Reference** CANON, doi 10.5281/zenodo.19454888, with Phi_k = L_k.
    """
    return float((losses**2).mean())


def gram_step(losses: Tensor, gramian: Tensor, weights: Tensor | None = None) -> float:
    """Return the step eta along -d, d = J^T w, that minimises h with the losses linearised.

    eta = L'G w / (w'G^2 w). For w = (2/K) L, the default, d is grad h and
    eta = (K/2) L'G L / (L'G^2 L), between K / (2 lambda_max) and K / (2 lambda_min). Negative
    where d points uphill on h, inf where J d = 0.

    Parameters
    ----------
    losses : tensor of shape (K,)
    gramian : tensor of shape (K, K)
    weights : tensor of shape (K,), or None for grad h

    **Reference** CANON, doi 10.5281/zenodo.19454888, Gram-only step; general w is ours.
    """
    w = 2 * losses / len(losses) if weights is None else weights
    progress = gramian @ w
    squared = float(progress @ progress)
    return float(losses @ progress) / squared if squared > 0 else math.inf


def self_bounding_step(
    losses: Tensor, beta: float, gramian: Tensor | None = None, weights: Tensor | None = None
) -> float:
    """Return the step along -d at which h falls, for losses L_k >= 0 that are beta-smooth.

    eta = 1 / (9 beta sqrt(h)) for d = grad h: then h+ <= h - (eta / 2) |grad h|^2. With weights w
    of another direction d = J^T w it is that of d's projection on grad h,
    eta = <grad h, d> / (9 beta sqrt(h) |d|^2) with grad h = (2/K) J^T L (ours): negative uphill.
    inf where h = 0 or d = 0.

    Parameters
    ----------
    losses : tensor of shape (K,)
    beta : float
        Largest Lipschitz constant of a task loss's gradient.
    gramian, weights : tensors of shapes (K, K) and (K,), or None for d = grad h

    Raises
    ------
    ValueError
        For a negative loss.

    **Reference** CANON, doi 10.5281/zenodo.19454888, self-bounding step. The constant 9 is the
    careful one: 6 can be proven too.
    """
    if bool((losses < 0).any()):
        k = int((losses < 0).nonzero()[0])
        raise ValueError(
            f"the self-bounding step needs losses that are never negative; that of task {k} is "
            f"{float(losses[k]):g}"
        )
    value = h(losses)
    if value <= 0:
        return math.inf
    eta = 1 / (9 * beta * math.sqrt(value))
    if gramian is None or weights is None:
        return eta
    progress = gramian @ weights
    squared = float(weights @ progress)
    if squared <= 0:
        return math.inf
    return eta * 2 / len(losses) * float(losses @ progress) / squared


def critical_cone(gramian: Tensor) -> float:
    """Return c_crit: a direction d with cos(d, g0) >= c improves every task iff c < c_crit.

    c_crit = sqrt(a'G a / s0), a = w0 + u, u = argmin_{u >= 0} (w0 + u)'G(w0 + u); the cosine
    between g0 and the cone dual to the task gradients (our derivation). 0 where some tasks oppose
    each other outright, at most 1. Tasks with a zero gradient are left out; 0 if g0 = 0.
    """
    w0 = mean_weights(gramian)
    s0 = float(w0 @ gramian @ w0)
    keep = gramian.diagonal() > 0
    if s0 <= 0:
        return 0.0
    g = gramian[keep][:, keep] / s0
    a = torch.from_numpy(shortest_increase(g.numpy(), w0[keep].numpy()))
    return min(1.0, math.sqrt(max(float(a @ g @ a), 0.0)))
