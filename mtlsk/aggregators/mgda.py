"""MGDA: the shortest vector in the convex hull of the task gradients."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mtlsk.aggregators.base import SolvedDual, scaled, spread
from mtlsk.aggregators.online_dual import OnlineDual
from mtlsk.gramian import mean_weights
from mtlsk.simplex import min_norm_point


class MGDA(OnlineDual, SolvedDual):
    """Multiple-gradient descent: the min-norm point, w = argmin_{w in simplex} |J^T w|^2.

    The update is a common descent direction, <g_i, d> >= |d|^2 for all i, or zero at a
    Pareto-stationary point. Solved exactly, by a search over supports, not by Frank-Wolfe.

    Tasks with a zero gradient are left out (they would stop the others), which is ours. The
    gradients are not normalised: small ones dominate, as in the paper.

    **Reference** Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective
    optimization", C. R. Acad. Sci. Paris 350 (2012), Theorem 2.2; Sener and Koltun, "Multi-task
    learning as multi-objective optimization", NeurIPS 2018, eq. (4).
    """

    paper = "Désidéri 2012; Sener and Koltun 2018"
    cost = "a quadratic program over the simplex, from the last support"
    properties = frozenset({"non-conflicting", "simplex", "stationary"})

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the min-norm weights, on the simplex, shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if not kept:
            return mean_weights(gramian)
        w = min_norm_point(g, self.recall_support(kept))
        self.keep_support(w, kept)
        return spread(w, kept, len(gramian))

    def coefficients(self, s0: Any, b: Any, r: Any) -> tuple[float, float]:
        """Return (0, 1): the update is the dual gradient itself."""
        return 0.0, 1.0
