"""MGDA: the shortest vector in the convex hull of the task gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mtlsk.aggregators.base import SolvedDual, scaled, spread
from mtlsk.aggregators.online_dual import OnlineDual
from mtlsk.domains import Choice
from mtlsk.gramian import mean_weights
from mtlsk.simplex import Array, min_norm_point

LEARNT = 1e-12
"""A loss below this share of the largest one counts as zero."""


class MGDA(OnlineDual, SolvedDual):
    """Multiple-gradient descent: the min-norm point, v = argmin_{v in simplex} |sum v_k g_k/s_k|^2.

    The update d = sum_k v_k g_k / s_k, rescaled so that the weights v_k / s_k sum to 1, is a
    common descent direction, or zero at a Pareto-stationary point. Solved exactly, by a search
    over supports, not by Frank-Wolfe.

    Tasks with a zero gradient are left out (they would stop the others), which is ours. Where the
    gradients are not normalised the small ones dominate, as in the paper. The normalisations are
    those of Sener and Koltun's code, which then applies v to the gradients as they are, and need
    not descend for all tasks; to weigh by v / s is ours.

    Parameters
    ----------
    normalization : "none", "l2", "loss" or "loss+"
        s_k = 1, |g_k|, L_k or L_k |g_k|. ``"l2"`` and ``"loss"`` do not depend on the units of the
        losses. The last two leave out tasks whose loss is zero (below 1e-12 of the largest; ours).

    Attributes
    ----------
    support_ : list of int
        See :class:`~mtlsk.aggregators.base.SolvedDual`. Memory.

    Raises
    ------
    ValueError
        Naming the task, for a negative loss with ``"loss"`` or ``"loss+"``.

    **Reference** Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective
    optimization", C. R. Acad. Sci. Paris 350 (2012), Theorem 2.2; Sener and Koltun, "Multi-task
    learning as multi-objective optimization", NeurIPS 2018, eq. (4).
    """

    paper = "Désidéri 2012; Sener and Koltun 2018"
    cost = "a quadratic program over the simplex, from the last support"
    domains = {"normalization": Choice("none", "l2", "loss", "loss+")}

    def __init__(self, normalization: str = "none") -> None:
        self.normalization = normalization

    @property
    def properties(self) -> frozenset[str]:
        """A common descent direction; free of units where each s_k has those of g_k."""
        same = {"scale-invariant"} if self.normalization in ("l2", "loss") else set()
        return frozenset({"non-conflicting", "simplex", "stationary"} | same)

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the min-norm weights, on the simplex, shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if self.normalization in ("loss", "loss+"):
            self._require_positive(losses)
            above = LEARNT * float(losses.max())
            left = [i for i, task in enumerate(kept) if float(losses[task]) > above]
            if len(left) < len(kept):
                g, kept = g[np.ix_(left, left)], [kept[i] for i in left]
        if not kept:
            return mean_weights(gramian)
        if self.normalization == "none":
            v = min_norm_point(g, self.recall_support(kept))
            self.keep_support(v, kept)
            return spread(v, kept, len(gramian))
        inverse = 1 / self._scales(g, losses.numpy(), kept)
        inverse /= (inverse * np.sqrt(g.diagonal())).max()  # the longest g_k / s_k is 1
        v = min_norm_point(g * np.outer(inverse, inverse), self.recall_support(kept))
        self.keep_support(v, kept)
        w = v * inverse
        return spread(w / float(w.sum()), kept, len(gramian))

    @property
    def has_online_dual(self) -> bool:
        """Whether nothing is normalised: |g_k| is known from the whole Gramian only."""
        return self.normalization == "none"

    def coefficients(self, s0: Any, b: Any, r: Any) -> tuple[float, float]:
        """Return (0, 1): the update is the dual gradient itself."""
        return 0.0, 1.0

    def _scales(self, g: Array, losses: Array, kept: Sequence[int]) -> Array:
        """Return s_k up to a common factor, of the tasks kept."""
        norms = np.sqrt(g.diagonal())
        if self.normalization == "l2":
            return norms
        shares: Array = losses[kept] / losses.max()
        return shares if self.normalization == "loss" else shares * norms

    def _require_positive(self, losses: Tensor) -> None:
        """Raise ValueError, naming the task, for a negative loss."""
        if float(losses.min()) < 0:
            place = int(losses.argmin())
            raise ValueError(
                f"MGDA(normalization={self.normalization!r}) divides by the losses, and that of "
                f"task {self.tasks_of_call(len(losses))[place]} is {float(losses[place]):g}; "
                'it must not be negative: take normalization="l2" or a loss bounded by zero'
            )
