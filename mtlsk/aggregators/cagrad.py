"""CAGrad: the best worst-task progress in a ball around the mean gradient."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from mtlsk.aggregators.base import SolvedDual, scaled, spread
from mtlsk.aggregators.online_dual import TINY, OnlineDual, functions
from mtlsk.domains import Interval
from mtlsk.gramian import mean_weights
from mtlsk.simplex import linear_plus_norm, min_norm_point, rounding, search_faces


class CAGrad(OnlineDual, SolvedDual):
    """Conflict-averse gradient descent: max_d min_i <g_i, d> subject to |d - g0| <= c |g0|.

    With g0 the mean gradient the dual is min_{w in simplex} <g_w, g0> + c |g0| |g_w| and
    d = g0 + c |g0| g_w / |g_w|, so the weights are a = w0 + c sqrt(s0 / w'Gw) w with
    s0 = |g0|^2. Solved exactly, by a search over supports. c = 0 is the mean gradient; the update
    is non-conflicting in general only from c = 1 on.

    Tasks with a zero gradient do not take part in the min over i (ours).

    Parameters
    ----------
    c : float
        Radius of the ball relative to |g0|, in [0, inf); the paper takes it in [0, 1).

    **Reference** Liu, Liu, Jin, Stone and Liu, "Conflict-averse gradient descent for multi-task
    learning", NeurIPS 2021, eq. (3) to (5), without the rescaling by 1 / (1 + c^2) of its code.
    """

    domains = {"c": Interval(0.0, math.inf, search=(0.05, 0.95))}

    paper = "Liu et al. 2021, NeurIPS"
    cost = "a convex program over the simplex, from the last support"

    def __init__(self, c: float = 0.5) -> None:
        self.c = c

    @property
    def properties(self) -> frozenset[str]:
        """Non-conflicting from c = 1 on; c = 0 is the mean gradient."""
        if self.c == 0:
            return frozenset({"simplex", "mean length"})
        return frozenset({"non-conflicting"} if self.c >= 1 else ())

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return a = w0 + c sqrt(s0 / w'Gw) w, shape (K,)."""
        assert gramian is not None
        n_tasks = len(gramian)
        g, kept = scaled(gramian)
        progress = g.sum(1) / n_tasks  # <g_i, g0>
        s0 = float(progress.sum()) / n_tasks
        if self.c == 0 or s0 <= 0:
            return mean_weights(gramian)
        radius = self.c * math.sqrt(s0)
        support = self.recall_support(kept)
        w = search_faces(g, support, progress, radius) if support else None
        if w is None:
            shortest = min_norm_point(g)  # the solution of the limit c -> inf
            if self.c >= 1 and float(shortest @ g @ shortest) <= rounding(g, shortest):
                return mean_weights(gramian)  # the dual optimum is at zero: nowhere to point
            w = linear_plus_norm(progress, g, radius, shortest)
        squared = float(w @ g @ w)
        if squared <= rounding(g, w):
            return mean_weights(gramian)
        self.keep_support(w, kept)
        a = spread(self.c * math.sqrt(s0 / squared) * w, kept, n_tasks)
        a += 1 / n_tasks
        return a

    def coefficients(self, s0: Any, b: Any, r: Any) -> tuple[Any, Any]:
        """Return (1, c |g0| / |g_w|), (1, 0) where g_w is zero."""
        f = functions(r)
        return 1.0, f.where(r > 0, self.c * f.sqrt(s0 / (r + TINY)), 0.0)
