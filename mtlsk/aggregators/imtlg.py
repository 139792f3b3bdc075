"""IMTL-G: the update on which all unit gradients have the same projection."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mtlsk.aggregators.base import Aggregator, scaled, spread
from mtlsk.gramian import mean_weights
from mtlsk.simplex import equal_projections, unit_cosines


class IMTLG(Aggregator):
    """Impartial gradients: <g_i, d> / |g_i| is the same number for all tasks.

    With cosines C and lengths n_k = |g_k| that is v_k = (C^+ 1)_k / n_k, which is G^+ n for
    linearly independent gradients; otherwise the projections are as equal as least squares makes
    them, and may then be negative.

    The paper makes the weights sum to 1. Where sum v < 0 that turns the update uphill for every
    task, and where sum v is near 0 it blows up: here w = v / sum_k |v_k|, which is the same
    direction otherwise (ours). Where C 1 = 0 the projections can be equal on d = 0 only; the
    weights are then those of the bisector, 1 / n_k, which is zero.

    Tasks with a zero gradient are left out (ours).

    **Reference** Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards impartial multi-task
    learning", ICLR 2021, section 3.1 (closed form); for dependent gradients Quinton and Rey,
    "Jacobian descent for multi-objective optimization", 2024.
    """

    paper = "Liu et al. 2021, ICLR"
    cost = "an eigendecomposition (K, K)"
    properties = frozenset({"scale-invariant"})

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return v / sum |v|, shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if not kept:
            return mean_weights(gramian)
        cosines, norms = unit_cosines(g)
        x, total = equal_projections(cosines)
        v = (x if total > 0 else np.ones(len(x))) / norms
        return spread(v / float(np.abs(v).sum()), kept, len(gramian))
