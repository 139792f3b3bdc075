"""DualProj: the projection of the mean gradient on the dual cone of all gradients."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mtlsk.aggregators.base import Aggregator, scaled, spread
from mtlsk.gramian import mean_weights
from mtlsk.simplex import shortest_increase


class DualProj(Aggregator):
    """The direction nearest to the mean gradient that conflicts with no task, {d : J d >= 0}.

    Its weights are argmin_{v >= w0} v'Gv: those of the mean where that conflicts with none. Solved
    exactly by non-negative least squares on the unit gradients.

    The paper projects the gradient of a new task on the cone dual to the gradients of old ones; to
    project the mean gradient of tasks learnt together is Quinton and Rey's reading.

    Tasks with a zero gradient have nothing to conflict with.

    **Reference** Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning",
    NeurIPS 2017, eq. (8) to (11); Quinton and Rey, "Jacobian descent for multi-objective
    optimization", 2024.
    """

    paper = "Lopez-Paz and Ranzato 2017, NeurIPS"
    cost = "an eigendecomposition (K, K) and a non-negative least squares"
    properties = frozenset({"non-conflicting"})

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the weights of the projected mean, shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if not kept:
            return mean_weights(gramian)
        share = np.full(len(g), 1 / len(gramian))
        return spread(shortest_increase(g, share), kept, len(gramian))
