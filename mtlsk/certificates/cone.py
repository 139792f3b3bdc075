"""The cone around the mean gradient in which every task can improve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mtlsk.gramian import mean_weights
from mtlsk.simplex import shortest_increase


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
