"""Aligned-MTL: the gradients' principal components at one common length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.domains import Choice
from mtlsk.gramian import mean_weights
from mtlsk.simplex import spectrum


class AlignedMTL(Aggregator):
    """Independent component alignment: the mean of the gradients after their singular values are 1.

    With G = V diag(l) V' over the positive eigenvalues (above 16 K eps of the largest),
    w = sqrt(scale) V l^(-1/2) V' w0: the update is sqrt(scale) times the mean of the rows of the
    orthogonal matrix nearest to J, whose condition number is 1.

    Parameters
    ----------
    scale : "min", "median" or "rmse"
        The common squared length: the smallest l, as in the paper, their (lower) median, or their
        mean, as in the official code.

    **Reference** Senushkin, Patakin, Kuznetsov and Konushin, "Independent component alignment for
    multi-task learning", CVPR 2023, Algorithm 1.
    """

    paper = "Senushkin et al. 2023, CVPR"
    cost = "an eigendecomposition (K, K)"
    domains = {"scale": Choice("min", "median", "rmse")}

    def __init__(self, scale: str = "min") -> None:
        self.scale = scale

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return sqrt(scale) V l^(-1/2) V' w0, shape (K,)."""
        assert gramian is not None
        g = gramian.numpy()
        largest = float(g.diagonal().max())
        if largest <= 0:
            return mean_weights(gramian)
        values, vectors = spectrum(g / largest)
        if self.scale == "min":
            common = values[0]
        else:
            common = values.mean() if self.scale == "rmse" else values[(len(values) - 1) // 2]
        along = vectors.sum(0) / len(g)
        return torch.from_numpy(vectors @ (np.sqrt(common / values) * along))
