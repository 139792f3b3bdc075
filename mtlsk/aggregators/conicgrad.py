"""ConicGrad: the best worst-task progress inside a cone around the mean gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from mtlsk.aggregators.adam import adam_step
from mtlsk.aggregators.base import SolvedDual, scaled, spread
from mtlsk.aggregators.online_dual import TINY, OnlineDual, functions
from mtlsk.certificates import critical_cone
from mtlsk.domains import Choice, Either, Interval, PerTask
from mtlsk.gramian import mean_weights
from mtlsk.simplex import exact_cone, rounding


class ConicGrad(OnlineDual, SolvedDual):
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
      c p(w) + s q(w), p = <g_w, g0>/|g0|, q = |g_w - p g0/|g0||, s = sqrt(1 - c^2): solved by a
      search over supports. If no direction in the cone improves all tasks the update is g0.
    - ``"flip"``: the closed form with the other sign of D (our reading of the likely slip). It
      descends whenever <g0, g_w> > 0 and tends to g0 as c -> 1, but can leave the cone.
    - ``"printed"``: the closed form as printed. **It ascends**; kept for comparison only.

    On the paper's toy problem, both losses at scale 1 and c <= .75, ``"exact"`` reaches the minimum
    of the mean loss from all five starts, ``"flip"`` mostly other points of the Pareto front and
    ``"printed"`` neither: studies/conicgrad_toy.

    The last two keep their dual weights from step to step: w = softmax(logits), one Adam step an
    iteration on the gradient J d~ / |g0|^2 with weight decay gamma (our reading of the paper's
    "one gradient step", whose units it does not give).

    A fixed cone can be so narrow that none of its directions improves all tasks: from c_crit on,
    :func:`~mtlsk.certificates.critical_cone`. With ``c="auto"`` it is c = rho c_crit in every step
    (ours; a dynamic cone is an open question of the paper), and the update the mean gradient only
    where no direction at all improves all tasks.

    Tasks with a zero gradient do not take part in the min over i (ours).

    Parameters
    ----------
    c : float or "auto"
        Cosine of the half-angle of the cone, in (0, 1]. The paper uses .25 to .9.
    solver : "exact", "flip" or "printed"
    gamma : float, or list of K floats
        Weight decay of the logits, for all tasks or one a task (an open question of the paper);
        only ``"flip"`` and ``"printed"``.
    dual_lr : float
        Learning rate of the logits; only ``"flip"`` and ``"printed"``.
    rho : float
        Share of the critical cosine, in (0, 1); only ``c="auto"``.

    Attributes
    ----------
    logits_, first_moment_, second_moment_, n_adam_steps_ : float64 tensors of shape (K,)
        Memory of the dual weights and of their Adam (``"flip"`` and ``"printed"`` only).
    support_, at_edge_ : list of int, bool
        The tasks whose solved dual weights were positive, and whether the update was on the
        boundary of the cone (``"exact"`` only): where the next call begins. Memory.

    Raises
    ------
    ValueError
        If a list ``gamma`` has not one entry a task.

    **Reference** "Fantastic multi-task gradient updates and how to find them in a cone",
    arXiv 2502.00217: primal in eq. (4), closed form and dual step in its Algorithm 1.
    """

    paper = "arXiv 2502.00217"
    cost = "a convex program over the simplex, from the last support"
    has_cone = True  # whose cosine c a controller may set
    domains = {
        "c": Either(Interval(0.0, 1.0, open_low=True, search=(0.05, 0.99)), ("auto",)),
        "solver": Choice("exact", "flip", "printed"),
        "gamma": PerTask(Interval(0.0, math.inf, search=(0.0, 0.01))),
        "dual_lr": Interval(0.0, math.inf, open_low=True, log=True, search=(1e-3, 1e-1)),
        "rho": Interval(0.0, 1.0, open_low=True, open_high=True),
    }

    at_edge_: bool

    def __init__(
        self,
        c: float | str = 0.5,
        solver: str = "exact",
        gamma: float | Sequence[float] = 0.001,
        dual_lr: float = 0.025,
        rho: float = 0.9,
    ) -> None:
        self.c = c
        self.solver = solver
        self.gamma = gamma
        self.dual_lr = dual_lr
        self.rho = rho

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
        assert gramian is not None
        g, kept = scaled(gramian)
        share = np.full(len(g), 1 / len(gramian))
        s0 = float(share @ g @ share)
        if not kept or s0 <= rounding(g, share):  # the mean gradient is zero: no cone
            return mean_weights(gramian)
        c = self._cosine(gramian)
        if self.solver != "exact":
            return self._follow_dual(gramian, c)
        solution = None
        if 0 < c < 1:
            support = self.recall_support(kept)
            at_edge = getattr(self, "at_edge_", False)
            solution = exact_cone(g, share, s0, c, support, at_edge)
        if solution is None:
            return mean_weights(gramian)
        self.keep_support(solution.dual, kept)
        self.at_edge_ = solution.at_edge
        return spread(solution.weights, kept, len(gramian))

    @property
    def properties(self) -> frozenset[str]:
        """The length is that of the mean gradient, c = 1; a cone below c_crit helps all."""
        if self.c == "auto" and self.solver == "exact":  # where some direction helps all
            return frozenset({"mean length", "non-conflicting"})
        return frozenset({"mean length", "simplex"} if self.c == 1 else {"mean length"})

    @property
    def has_online_dual(self) -> bool:
        """Whether c is a number and the solver ``"exact"``: the others follow their own dual.

        The critical cosine is known from the whole Gramian only.
        """
        return self.solver == "exact" and self.c != "auto"

    def coefficients(self, s0: Any, b: Any, r: Any) -> tuple[Any, Any]:
        """Return the projection of g_w on the cone, scaled to |g0|; (1, 0) where it is zero."""
        f = functions(s0)
        c = float(self.c)
        s = math.sqrt(1 - c * c)
        length = f.sqrt(s0)
        p = b / (length + TINY)
        q = f.sqrt(abs(r - p * p))  # below zero it is rounding
        inside = p >= c * f.sqrt(r) * (1 - 1e-12)
        mean = (c * p + s * q <= 0) | (s0 <= 0) | (r <= 0)
        on_edge = s * length / (q + 1e-150 * length + TINY)
        alpha = f.where(mean, 1.0, f.where(inside, 0.0, c - on_edge * b / (s0 + TINY)))
        beta = f.where(mean, 0.0, f.where(inside, length / (f.sqrt(r) + TINY), on_edge))
        return alpha, beta

    def _cosine(self, gramian: Tensor) -> float:
        """Return c of this step; 0 with ``"auto"`` where no direction improves all tasks."""
        return self.rho * critical_cone(gramian) if self.c == "auto" else float(self.c)

    def _follow_dual(self, gramian: Tensor, c: float) -> Tensor:
        """Return the weights of the closed form at the current dual weights, then move these."""
        w = torch.softmax(self.recall("logits_", len(gramian)), 0)
        w0 = mean_weights(gramian)
        s0 = float(w0 @ gramian @ w0)
        a = w0
        if 0 < c < 1:
            sign = 1.0 if self.solver == "flip" else -1.0
            a = w + sign * float(w0 @ gramian @ w) / ((1 - c * c) * s0) * w0
        squared = float(a @ gramian @ a)
        if squared <= 1e-28 * s0:
            return w0
        a = a * math.sqrt(s0 / squared)
        progress = gramian @ a / s0
        slope = w * (progress - float(w @ progress))  # through the softmax
        per_task = isinstance(self.gamma, Sequence)
        decay: Any = self.entries("gamma", len(gramian)) if per_task else self.gamma
        adam_step(self, "logits_", slope, self.dual_lr, decay)
        return a
