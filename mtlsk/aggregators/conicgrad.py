"""ConicGrad: the best worst-task progress inside a cone around the mean gradient."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
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
from mtlsk.domains import Choice, Interval
from mtlsk.gramian import mean_weights
from mtlsk.simplex import Array, linear_plus_norm, min_norm_point


class ConicGrad(OnlineDual, Aggregator):
    """Worst-task progress in a cone: max_d min_i <g_i, d> s.t. <g0, d> >= c |g0| |d|, |d| = |g0|.

    g0 is the mean of the K task gradients, c the cosine of the cone's half-angle: c = 1 is the
    mean gradient, and from c <= cos(g0, min-norm point) down the update is MGDA's direction.

    **The printed closed form is not the maximiser.** The paper gives
    d* = g_w / (c^2 |g0|^2) - g0 D g0'g_w / (c^4 |g0|^4), one gradient step on w an iteration,
    and d~ = d* |g0| / |d*|. Carrying out its Sherman-Morrison step gives D = c^2 / (1 - c^2); the
    matrix Z = c^2 |g0|^2 I - g0 g0' it inverts has a negative eigenvalue along g0, so whenever
    <g0, g_w> > 0 the direction d* makes an obtuse angle with g0. With equal w it is exactly -g0:
    it ascends, and it is in the cone only where g_w is in the polar cone. At c = 1 it divides by
    zero. The three solvers are:

    - ``"exact"`` (default; our derivation): the constrained maximiser. Where the min-norm point is
      in the cone, the answer is MGDA's direction. Otherwise the maximiser is on the boundary,
      d = c g0/|g0| + s v with v orthogonal to g0, and its dual is the min over the simplex of
      c p(w) + s q(w), p = <g_w, g0>/|g0|, q = |g_w - p g0/|g0||, s = sqrt(1 - c^2): solved by an
      interior point method. If no direction in the cone improves all tasks the update is g0.
    - ``"flip"``: the closed form with the other sign of D (our reading of the likely slip). It
      descends whenever <g0, g_w> > 0 and tends to g0 as c -> 1, but can leave the cone.
    - ``"printed"``: the closed form as printed. **It ascends**; kept for comparison only.

    The last two keep their dual weights from step to step: w = softmax(logits), one Adam step an
    iteration on the gradient J d~ / |g0|^2 with weight decay gamma (our reading of the paper's
    "one gradient step", whose units it does not give).

    Tasks with a zero gradient do not take part in the min over i (ours).

    Parameters
    ----------
    c : float
        Cosine of the half-angle of the cone, in (0, 1]. The paper uses .25 to .9.
    solver : "exact", "flip" or "printed"
    gamma : float
        Weight decay of the logits; only ``"flip"`` and ``"printed"``.
    dual_lr : float
        Learning rate of the logits; only ``"flip"`` and ``"printed"``.

    Attributes
    ----------
    logits_, first_moment_, second_moment_ : float64 tensors of shape (K,)
        Memory of the dual weights and of their Adam (``"flip"`` and ``"printed"`` only).
    n_dual_steps_ : int
        How many steps that Adam has taken.

    **Reference** "Fantastic multi-task gradient updates and how to find them in a cone",
    arXiv 2502.00217: primal in eq. (4), closed form and dual step in its Algorithm 1.
    """

    domains = {
        "c": Interval(0.0, 1.0, open_low=True, search=(0.05, 0.99)),
        "solver": Choice("exact", "flip", "printed"),
        "gamma": Interval(0.0, math.inf, search=(0.0, 0.01)),
        "dual_lr": Interval(0.0, math.inf, open_low=True, log=True, search=(1e-3, 1e-1)),
    }

    logits_: Tensor
    first_moment_: Tensor
    second_moment_: Tensor
    n_dual_steps_: int

    def __init__(
        self, c: float = 0.5, solver: str = "exact", gamma: float = 0.001, dual_lr: float = 0.025
    ) -> None:
        self.c = c
        self.solver = solver
        self.gamma = gamma
        self.dual_lr = dual_lr

    def check_domains(self) -> Self:
        """Check the domains, and that the printed form is not asked for where it is undefined."""
        super().check_domains()
        if self.solver == "printed" and self.c == 1:
            raise ValueError(
                "ConicGrad: solver='printed' divides by zero at c=1; take c < 1 or solver='exact'"
            )
        return self

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the weights a of d = J^T a with |d| = |g0|, shape (K,)."""
        gramian = require_gramian(gramian)
        w0 = mean_weights(gramian)
        g, keep = scaled(gramian)
        share = np.full(len(g), 1 / len(keep))
        s0 = float(share @ g @ share)
        if s0 <= 1e-28:  # the mean gradient is zero: no cone
            return w0
        if self.solver != "exact":
            return self._follow_dual(gramian)
        if self.c == 1:
            return w0
        solution = exact_cone(g, share, s0, self.c)
        return w0 if solution is None else spread(solution[0], keep)

    @property
    def has_online_dual(self) -> bool:
        """Whether the solver is ``"exact"``: the other two follow a dual of their own."""
        return self.solver == "exact"

    def coefficients(self, gram2: Any) -> tuple[Any, Any]:
        """Return the projection of g_w on the cone, scaled to |g0|; (1, 0) where it is zero."""
        xp = namespace(gram2)
        c, s = self.c, math.sqrt(1 - self.c**2)
        s0, b, r = gram2[0, 0], gram2[0, 1], gram2[1, 1]
        length = xp.sqrt(s0)
        p = b / (length + TINY)
        q = xp.sqrt(abs(r - p * p))  # below zero it is rounding
        inside = p >= c * xp.sqrt(r) * (1 - 1e-12)
        mean = (c * p + s * q <= 0) | (s0 <= 0) | (r <= 0)
        on_edge = s * length / (q + 1e-150 * length + TINY)
        alpha = xp.where(mean, 1.0, xp.where(inside, 0.0, c - on_edge * b / (s0 + TINY)))
        beta = xp.where(mean, 0.0, xp.where(inside, length / (xp.sqrt(r) + TINY), on_edge))
        return alpha, beta

    def _follow_dual(self, gramian: Tensor) -> Tensor:
        """Return the weights of the closed form at the current dual weights, then move these."""
        n_all = len(gramian) if self.active_ is None else max(len(gramian), max(self.active_) + 1)
        active = list(range(len(gramian)) if self.active_ is None else self.active_)
        if getattr(self, "logits_", None) is None:
            self.n_dual_steps_ = 0
            self.logits_ = torch.zeros(0, dtype=torch.float64)
            self.first_moment_ = self.second_moment_ = self.logits_
        if len(self.logits_) < n_all:  # a task of a higher index appears for the first time
            more = torch.zeros(n_all - len(self.logits_), dtype=torch.float64)
            self.logits_ = torch.cat([self.logits_, more])
            self.first_moment_ = torch.cat([self.first_moment_, more])
            self.second_moment_ = torch.cat([self.second_moment_, more])
        w = torch.softmax(self.logits_[active], 0)
        w0 = mean_weights(gramian)
        s0 = float(w0 @ gramian @ w0)
        a = w0
        if self.c < 1:
            sign = 1.0 if self.solver == "flip" else -1.0
            a = w + sign * float(w0 @ gramian @ w) / ((1 - self.c**2) * s0) * w0
        squared = float(a @ gramian @ a)
        if squared <= 1e-28 * s0:
            return w0
        a = a * math.sqrt(s0 / squared)
        progress = gramian @ a / s0
        slope = w * (progress - float(w @ progress))  # through the softmax
        self._adam(active, slope + self.gamma * self.logits_[active])
        return a

    def _adam(self, active: list[int], slope: Tensor) -> None:
        """Move the active logits by one step of Adam (betas .9, .999)."""
        self.n_dual_steps_ += 1
        t = self.n_dual_steps_
        m, v = self.first_moment_, self.second_moment_
        m[active] = 0.9 * m[active] + 0.1 * slope
        v[active] = 0.999 * v[active] + 0.001 * slope**2
        denominator = (v[active] / (1 - 0.999**t)).sqrt() + 1e-8
        self.logits_[active] -= self.dual_lr * m[active] / (1 - 0.9**t) / denominator


def exact_cone(g: Array, w0: Array, s0: float, c: float) -> tuple[Array, Array] | None:
    """Return (a, w): d = J^T a is the maximiser in the cone, |d| = |g0|, w its dual weights.

    None where no direction in the cone improves all tasks. ``g`` (K, K) has a positive diagonal,
    c < 1 and s0 = w0'G w0 > 0. The dual value of w is |g0| times the length of the projection of
    g_w on the cone; it equals the primal value min_i (G a)_i up to rounding.
    """
    shortest = min_norm_point(g)
    r = float(shortest @ g @ shortest)
    if r <= 1e-28:  # Pareto-stationary: no direction improves all tasks
        return None
    p = g @ w0 / math.sqrt(s0)  # progress of each task along g0 / |g0|
    # equality (c = cos) must not fall to rounding: both branches agree there
    if float(p @ shortest) >= c * math.sqrt(r) * (1 - 1e-12):
        return shortest * math.sqrt(s0 / r), shortest
    s = math.sqrt(1 - c * c)
    orthogonal = g - np.outer(p, p)
    w = linear_plus_norm(c * p, orthogonal, s, 0.9 * shortest + 0.1 / len(g))
    q = math.sqrt(max(float(w @ orthogonal @ w), 0.0))
    if q == 0 or c * float(p @ w) + s * q <= 0:
        return None
    b = math.sqrt(s0) * float(p @ w)
    return c * w0 + math.sqrt(s0) * (s / q) * (w - b / s0 * w0), w
