"""CAGrad: the best worst-task progress in a ball around the mean gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from mtlsk.aggregators.base import (
    TINY,
    Aggregator,
    OnlineDual,
    namespace,
    require_gramian,
    scaled,
    spread,
)
from mtlsk.domains import Interval
from mtlsk.gramian import mean_weights
from mtlsk.simplex import linear_plus_norm, min_norm_point


class CAGrad(OnlineDual, Aggregator):
    """Conflict-averse gradient descent: max_d min_i <g_i, d> subject to |d - g0| <= c |g0|.

    With g0 the mean gradient the dual is min_{w in simplex} <g_w, g0> + c |g0| |g_w| and
    d = g0 + c |g0| g_w / |g_w|, so the weights are a = w0 + c sqrt(s0 / w'Gw) w with
    s0 = |g0|^2. Solved by an interior point method to a relative duality gap of 1e-12. c = 0 is
    the mean gradient; the update is non-conflicting in general only from c = 1 on.

    Tasks with a zero gradient do not take part in the min over i (ours).

    Parameters
    ----------
    c : float
        Radius of the ball relative to |g0|, in [0, inf); the paper takes it in [0, 1).

    **Reference** Liu, Liu, Jin, Stone and Liu, "Conflict-averse gradient descent for multi-task
    learning", NeurIPS 2021, eq. (3) to (5), without the rescaling by 1 / (1 + c^2) of its code.
    """

    domains = {"c": Interval(0.0, math.inf, search=(0.05, 0.95))}

    def __init__(self, c: float = 0.5) -> None:
        self.c = c

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return a = w0 + c sqrt(s0 / w'Gw) w, shape (K,)."""
        gramian = require_gramian(gramian)
        w0 = mean_weights(gramian)
        g, keep = scaled(gramian)
        share = np.full(len(g), 1 / len(keep))
        s0 = float(share @ g @ share)
        if self.c == 0 or s0 <= 0:
            return w0
        # inside the simplex, towards the solution of the limit c -> inf
        start = 0.5 * min_norm_point(g) + 0.5 / len(g)
        if start @ g @ start <= 0:
            start = np.arange(1, len(g) + 1) / (len(g) * (len(g) + 1) / 2)
        w = linear_plus_norm(g @ share, g, self.c * math.sqrt(s0), start)
        squared = float(w @ g @ w)
        if squared <= 1e-28:  # no length to point along: the dual optimum is at zero
            return w0
        return w0 + self.c * math.sqrt(s0 / squared) * spread(w, keep)

    def coefficients(self, gram2: Any) -> tuple[Any, Any]:
        """Return (1, c |g0| / |g_w|), (1, 0) where g_w is zero."""
        xp = namespace(gram2)
        s0, r = gram2[0, 0], gram2[1, 1]
        return 1.0, xp.where(r > 0, self.c * xp.sqrt(s0 / (r + TINY)), 0.0)
