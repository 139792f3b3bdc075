"""PCGrad: each task gradient loses the parts that conflict with the others, in random order."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator, scaled, spread
from mtlsk.gramian import mean_weights


class PCGrad(Aggregator):
    """Gradient surgery: the mean of the g_i, each projected off what conflicts with it in turn.

    For each i, over the other tasks j in a random order of its own: where <g_i', g_j> < 0,
    g_i' <- g_i' - <g_i', g_j> / |g_j|^2 g_j, starting from g_i' = g_i; d = (1/K) sum_i g_i' (the
    paper's sum, at the scale of the mean loss). A later projection may bring an earlier conflict
    back: only for two tasks is the update sure to conflict with none.

    Tasks with a zero gradient have nothing to conflict with.

    **Reference** Yu, Kumar, Gupta, Levine, Hausman and Finn, "Gradient surgery for multi-task
    learning", NeurIPS 2020, Algorithm 1.
    """

    paper = "Yu et al. 2020, NeurIPS"
    cost = "K products of (K, K) matrices"
    stochastic: ClassVar[bool] = True

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the mean of the coefficients of the projected gradients, shape (K,)."""
        assert gramian is not None
        orders = torch.rand(gramian.shape, dtype=torch.float64).argsort(1).numpy()
        g, kept = scaled(gramian)
        n = len(g)
        if n == 0:
            return mean_weights(gramian)
        if n < len(orders):
            orders = orders[:n].argsort(1)[:, :n].argsort(1)  # an order of those left
        rows = np.arange(n)
        projected = np.eye(n)  # row i: the coefficients of g_i'
        products = g.copy()  # <g_i', g_j>
        squares = g.diagonal()
        for others in orders.T:  # every i has its own task j to look at
            removed = np.minimum(products[rows, others], 0.0) / squares[others]
            removed[others == rows] = 0.0
            projected[rows, others] -= removed
            products -= removed[:, None] * g[others]
        return spread(projected.sum(0) / len(gramian), kept, len(gramian))
