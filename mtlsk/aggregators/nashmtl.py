"""Nash-MTL: the update that a Nash bargain between the tasks settles on."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mtlsk.aggregators.base import Aggregator, scaled, spread
from mtlsk.gramian import mean_weights
from mtlsk.simplex import fair_weights


class NashMTL(Aggregator):
    """Bargaining: d = J^T w maximises sum_k ln <g_k, d> in a ball, where G w = 1/w elementwise.

    Every <g_k, d> is positive, and the direction does not depend on the units of the losses. The
    paper solves a sequence of convex approximations, one every few steps; here the equation, which
    is the optimality condition of min_{w > 0} w'Gw/2 - sum_k ln w_k, is solved in every step
    by Newton's method (ours).

    As in the official code G is divided by its Frobenius norm first, so that one unit of all
    losses changes no weight; its sum over the tasks is divided by K here, so that equal gradients
    give the mean gradient. |d| is otherwise the same in every step, sqrt(K |G|) / K with that
    norm. At a Pareto-stationary point, where w is not bounded, the update is zero (ours).

    Tasks with a zero gradient are left out (ours): no w > 0 solves their equation.

    **Reference** Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya, "Multi-task
    learning as a bargaining game", ICML 2022, section 3.2.
    """

    paper = "Navon et al. 2022, ICML"
    cost = "a convex program, by Newton's method: about 6 solves (K, K)"
    properties = frozenset({"non-conflicting", "scale-invariant", "stationary"})

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return w / K, shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if not kept:
            return mean_weights(gramian)
        w = fair_weights(g / np.linalg.norm(g), 1.0)
        return spread(w / len(gramian), kept, len(gramian))
