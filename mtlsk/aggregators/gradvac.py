"""GradVac: every pair of task gradients is turned to at least its usual similarity."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator, scaled, spread
from mtlsk.domains import Interval
from mtlsk.gramian import mean_weights

CLOSEST = 0.999
"""Bound of |rho|: beyond it an orthogonal g_j would be added more than 22 times as long."""


class GradVac(Aggregator):
    """Gradient vaccine: g_i is turned towards g_j until their cosine is the usual one, rho_ij.

    For each i a copy g_i' = g_i goes through the other tasks j in random order. With
    phi = cos(g_i', g_j), where phi < rho_ij

        g_i' += |g_i'| (rho sqrt(1 - phi^2) - phi sqrt(1 - rho^2)) / (|g_j| sqrt(1 - rho^2)) g_j,

    after which cos(g_i', g_j) = rho_ij; then rho_ij <- (1 - beta) rho_ij + beta phi. The update is
    the mean of the g_i' (the paper's is their sum). All rho begin at 0, which is PCGrad's rule;
    beta = 0 keeps them there.

    What is ours: rho counts as at most .999 either way; a zero gradient, or a g_i' that an exactly
    opposite g_j has left at zero, is passed over, with no change of its rho; and a pair in which a
    task is absent keeps its rho. The paper works on groups of parameters, here the shared ones are
    one group.

    The orders come from torch's CPU generator, which ``fit`` seeds.

    Parameters
    ----------
    beta : float
        Share of the new cosine in rho, in [0, 1].

    Attributes
    ----------
    similarity_ : float64 tensor of shape (K, K)
        rho; the diagonal is not used. Memory.

    **Reference** Wang, Tsvetkov, Firat and Cao, "Gradient vaccine: investigating and improving
    multi-task optimization in massively multilingual models", ICLR 2021, Algorithm 1.
    """

    stochastic = True
    paper = "Wang et al. 2021, ICLR"
    cost = "O(K^3), K^2 of it in Python"
    domains = {"beta": Interval(0.0, 1.0, search=(0.001, 0.5))}

    def __init__(self, beta: float = 0.01) -> None:
        self.beta = beta

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the mean of the coefficients of the g_i', shape (K,)."""
        assert gramian is not None
        k = len(gramian)
        rho = self.recall("similarity_", k, pairs=True)
        g, kept = scaled(gramian)
        n = len(kept)
        if n == 0:
            return mean_weights(gramian)
        norms = np.sqrt(g.diagonal())
        lengths: list[float] = norms.tolist()
        targets: list[list[float]] = rho[kept][:, kept].tolist()
        total = np.zeros(n)
        for i, row in enumerate(targets):
            c = np.zeros(n)  # g_i' = J^T c
            c[i] = 1.0
            products, length = g[i], lengths[i]  # <g_i', g_j> for all j, and |g_i'|
            for j in torch.randperm(n).tolist():
                if j == i or length == 0:
                    continue
                phi = min(max(float(products[j]) / (length * lengths[j]), -1.0), 1.0)
                usual = min(max(row[j], -CLOSEST), CLOSEST)
                if phi < usual:
                    more = usual * math.sqrt((1 - phi * phi) / (1 - usual * usual)) - phi
                    c[j] += length / lengths[j] * more
                    products = c @ g
                    squared = float(products @ c)
                    rounding = 1e-14 * float(np.abs(c) @ norms) ** 2
                    length = math.sqrt(squared) if squared > rounding else 0.0
                row[j] += self.beta * (phi - row[j])
            total += c
        if self.beta > 0:
            index = torch.tensor(list(kept))
            rho[index[:, None], index] = torch.tensor(targets, dtype=torch.float64)
            self.remember("similarity_", rho)
        return spread(total / k, kept, k)
