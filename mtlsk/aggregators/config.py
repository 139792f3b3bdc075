"""ConFIG: the direction of equal cosines to all gradients, as long as they go along it."""

from __future__ import annotations

import math

from torch import Tensor

from mtlsk.aggregators.base import Aggregator, scaled, spread
from mtlsk.gramian import mean_weights
from mtlsk.simplex import equal_projections, unit_cosines


class ConFIG(Aggregator):
    """Conflict-free inverse gradients: d = (1/K) (sum_i <g_i, u>) u, u the direction of U^+ 1.

    U has the unit gradients as rows. In the cosines C = U U', with x = C^+ 1, u = U'x / sqrt(1'x);
    for linearly independent gradients u has the same positive cosine to all of them. The paper's
    length is the sum over tasks; ours, at the scale of the mean loss, is divided by K.

    The direction is that of :class:`~mtlsk.aggregators.IMTLG`, but where dependent gradients make
    the sum of the <g_i, u> negative: there ConFIG goes along -u. Where C 1 = 0 no direction is as
    near to all gradients, and d = 0.

    Tasks with a zero gradient are left out (ours).

    **Reference** Liu, Chu and Thuerey, "ConFIG: towards conflict-free training of physics informed
    neural networks", ICLR 2025 (arXiv 2408.11104), eq. (2) and (3).
    """

    paper = "Liu, Chu and Thuerey 2024"
    cost = "an eigendecomposition (K, K)"

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the weights of (1/K) (sum_i <g_i, u>) u, shape (K,)."""
        assert gramian is not None
        g, kept = scaled(gramian)
        if not kept:
            return mean_weights(gramian)
        cosines, norms = unit_cosines(g)
        x, total = equal_projections(cosines)
        if total <= 0:  # the bisector: zero
            w = 1 / norms
            return spread(w / float(w.sum()), kept, len(gramian))
        length = math.sqrt(total)
        along = float(norms @ (cosines @ x)) / length  # sum_i <g_i, u>
        return spread(along / (len(gramian) * length) * x / norms, kept, len(gramian))
