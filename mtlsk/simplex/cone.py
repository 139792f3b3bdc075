"""The best worst-task progress inside a cone around the mean gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mtlsk.simplex.faces import search_faces
from mtlsk.simplex.minimum import linear_plus_norm, min_norm_point
from mtlsk.simplex.numerics import Array, rounding


class ConeSolution(NamedTuple):
    """The maximiser in the cone and its dual weights."""

    weights: Array  # (K,): d = J^T weights, |d| = |g0|
    dual: Array  # (K,), on the simplex
    at_edge: bool  # whether d is on the boundary of the cone, or MGDA's direction


def exact_cone(
    g: Array,
    w0: Array,
    s0: float,
    c: float,
    support: Sequence[int] | None = None,
    at_edge: bool = False,
) -> ConeSolution | None:
    """Return the maximiser in the cone, None where no direction in it improves all tasks.

    ``g`` (K, K) has a positive diagonal, c < 1 and s0 = w0'G w0 > 0. The dual value of w is |g0|
    times the length of the projection of g_w on the cone; it equals the primal value min_i (G a)_i
    up to rounding. ``support`` and ``at_edge`` are a guess of the tasks with positive dual weights
    and of the branch; the answer does not depend on it.
    """
    p = g @ w0 / math.sqrt(s0)  # progress of each task along g0 / |g0|
    edge = _Edge(g, p, c)
    if support and at_edge:
        dual = search_faces(edge.gramian, support, edge.linear, edge.s)
        if dual is not None and edge.is_maximal(dual):
            return edge.solution(dual, w0, s0)
        support = None
    shortest = min_norm_point(g, support)
    r = float(shortest @ g @ shortest)
    if r <= rounding(g, shortest):  # Pareto-stationary: no direction improves all tasks
        return None
    # equality (c = cos) must not fall to rounding: both branches agree there
    if float(p @ shortest) >= c * math.sqrt(r) * (1 - 1e-12):
        return ConeSolution(shortest * math.sqrt(s0 / r), shortest, False)
    return edge.solution(linear_plus_norm(edge.linear, edge.gramian, edge.s, shortest), w0, s0)


class _Edge:
    """The best d on the boundary of the cone; its dual is min c p(w) + s q(w) over the simplex."""

    def __init__(self, g: Array, p: Array, c: float) -> None:
        self.g, self.p, self.c, self.s = g, p, c, math.sqrt(1 - c * c)
        self.linear = c * p
        self.gramian = g - p[:, None] * p  # of the gradients' parts orthogonal to g0

    def lengths(self, w: Array) -> tuple[float, float]:
        """Return p(w) and q(w), 0 for a q(w) lost in rounding."""
        squared = float(w @ self.gramian @ w)
        q = math.sqrt(squared) if squared > rounding(self.g, w) else 0.0
        return float(self.p @ w), q

    def is_maximal(self, w: Array) -> bool:
        """Return whether no d inside the cone is better than that of the minimising ``w``.

        So it is where g_w is outside the cone (g0 then has a multiplier >= 0) or in its polar.
        """
        along, q = self.lengths(w)
        return q > 0 and (self.s * along <= self.c * q or self.c * along + self.s * q <= 0)

    def solution(self, w: Array, w0: Array, s0: float) -> ConeSolution | None:
        """Return d = c g0/|g0| + s v at the length of g0, None if it does not improve all tasks."""
        along, q = self.lengths(w)
        if q == 0 or self.c * along + self.s * q <= 0:
            return None
        turned = self.s / q * (math.sqrt(s0) * w - along * w0)
        return ConeSolution(self.c * w0 + turned, w, True)
