"""FairGrad: alpha-fair shares of the progress that the update makes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mtlsk.aggregators.base import Aggregator, scaled, spread
from mtlsk.domains import Interval
from mtlsk.gramian import mean_weights
from mtlsk.simplex import fair_weights


class FairGrad(Aggregator):
    """Fair resource allocation: d maximises sum_k <g_k, d>^(1 - alpha) / (1 - alpha) in a ball.

    The weights solve (G w)_k = w_k^(-1/alpha): the less a task gains the more it weighs. alpha = 1
    is :class:`~mtlsk.aggregators.NashMTL`, alpha -> infinity goes towards the best worst-task
    progress; alpha = 0 would be :class:`~mtlsk.aggregators.LinearScalarization`. Every <g_k, d> is
    positive. Solved by Newton's method on the convex problem with this optimality condition.

    G is divided by its Frobenius norm first, and w by K (both ours): one unit of all losses then
    changes no weight, and equal gradients give the mean gradient. Neither changes the direction.
    At a Pareto-stationary point, where w is not bounded, the update is zero.

    Tasks with a zero gradient are left out (ours): no w > 0 solves their equation.

    Parameters
    ----------
    alpha : float
        How much fairness counts, in [0.05, 20] (beyond, powers overflow). The default of 2 is
        ours.

    **Reference** Ban and Ji, "Fair resource allocation in multi-task learning", ICML 2024,
    eq. (4).
    """

    paper = "Ban and Ji 2024, ICML"
    cost = "a convex program, by Newton's method: about 8 solves (K, K)"
    domains = {"alpha": Interval(0.05, 20.0, log=True, search=(0.5, 5.0))}

    def __init__(self, alpha: float = 2.0) -> None:
        self.alpha = alpha

    @property
    def properties(self) -> frozenset[str]:
        """Every <g_k, d> is positive; free of units at alpha = 1 only."""
        same = {"scale-invariant"} if self.alpha == 1 else set()
        return frozenset({"non-conflicting", "stationary"} | same)

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return w / K, shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if not kept:
            return mean_weights(gramian)
        w = fair_weights(g / np.linalg.norm(g), self.alpha)
        return spread(w / len(gramian), kept, len(gramian))
