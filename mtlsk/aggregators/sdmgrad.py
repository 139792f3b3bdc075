"""SDMGrad: the min-norm point, drawn towards the mean gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from mtlsk.aggregators.base import SolvedDual, scaled, spread
from mtlsk.aggregators.online_dual import OnlineDual
from mtlsk.domains import Interval
from mtlsk.gramian import mean_weights
from mtlsk.simplex import EPS, min_norm_point


class SDMGrad(OnlineDual, SolvedDual):
    """Direction-oriented descent: d = (g_w + lam g0)/(1 + lam), w = argmin |g_w + lam g0|^2.

    w is on the simplex. d is the min-norm point of the gradients shifted by lam g0: it has the
    largest min_i <g_i, d> + lam <g0, d> for its length. lam = 0 is MGDA, lam -> infinity the mean
    gradient.

    **Ours: not the paper's algorithm, but its inner problem solved.** The paper takes a few
    stochastic projected gradient steps on w, with Gramians J_1 J_2' of two independent batches,
    and a third batch for d, so that the expectation is free of the bias of one batch. With the
    Gramian of the one batch of the step that is not to be had: here w is the exact minimiser on
    this batch.

    Tasks with a zero gradient are left out of the minimum (ours): they would hold it at lam g0.

    Parameters
    ----------
    lam : float
        How much the mean gradient counts, in [0, inf). .3 is that of the paper's experiments.

    Attributes
    ----------
    support_ : list of int
        See :class:`~mtlsk.aggregators.base.SolvedDual`. Memory.

    **Reference** Xiao, Ban and Ji, "Direction-oriented multi-objective learning: simple and
    provable stochastic algorithms", NeurIPS 2023, the deterministic problem in section 4.
    """

    paper = "surrogate (ours) of Xiao, Ban and Ji 2023, NeurIPS"
    cost = "a quadratic program over the simplex, from the last support"
    domains = {"lam": Interval(0.0, math.inf, search=(0.0, 5.0))}

    def __init__(self, lam: float = 0.3) -> None:
        self.lam = lam

    @property
    def properties(self) -> frozenset[str]:
        """The weights are a mean of two on the simplex; lam = 0 is MGDA."""
        mgda = {"non-conflicting", "stationary"} if self.lam == 0 else set()
        return frozenset({"simplex"} | mgda)

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return (w + lam w0) / (1 + lam), shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if not kept:
            return mean_weights(gramian)
        k, pull = len(gramian), self.lam / (1 + self.lam)
        along = g.sum(1) / k  # <g_i, g0>
        s0 = float(along.sum()) / k
        # of (g_i + lam g0) / (1 + lam)
        shifted = (1 - pull) ** 2 * g + pull**2 * s0
        shifted += pull * (1 - pull) * (along[:, None] + along)
        lost = 8 * EPS * (g.diagonal() + pull * (np.abs(along) + s0))
        if bool((shifted.diagonal() <= lost).any()):
            w = np.zeros(len(g))  # one of them is zero, and so the shortest
            w[(shifted.diagonal() - lost).argmin()] = 1.0
        else:
            w = min_norm_point(shifted, self.recall_support(kept))
            self.keep_support(w, kept)
        a = (1 - pull) * spread(w, kept, k)
        a += pull / k
        return a

    def coefficients(self, s0: Any, b: Any, r: Any) -> tuple[float, float]:
        """Return (lam, 1) / (1 + lam): the dual gradient is J d."""
        return self.lam / (1 + self.lam), 1 / (1 + self.lam)
