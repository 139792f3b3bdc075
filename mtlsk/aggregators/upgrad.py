"""UPGrad: the mean of the gradients after each is projected on the dual cone of all."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mtlsk.aggregators.base import Aggregator, scaled, spread
from mtlsk.gramian import mean_weights
from mtlsk.simplex import shortest_increase


class UPGrad(Aggregator):
    """Unconflicting projections: the mean over i of the projection of g_i on {d : J d >= 0}.

    The projection of g_i has the weights argmin_{v >= e_i} v'Gv; those of tasks that conflict with
    none are e_i. As a mean of points of the dual cone the update conflicts with no task. Each is
    solved exactly by non-negative least squares on the unit gradients.

    Tasks with a zero gradient have nothing to conflict with.

    **Reference** Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024
    (arXiv 2406.16232), eq. (3) and Proposition 1.
    """

    paper = "Quinton and Rey 2024"
    cost = "an eigendecomposition (K, K), then up to K non-negative least squares"
    properties = frozenset({"non-conflicting"})

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the mean of the weights of the K projections, shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if not kept:
            return mean_weights(gramian)
        v = shortest_increase(g, np.eye(len(g)))
        return spread(v.sum(0) / len(gramian), kept, len(gramian))
