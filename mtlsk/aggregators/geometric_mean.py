"""GeometricMean: the gradient of the geometric mean of the losses."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator, require_non_negative
from mtlsk.gramian import mean_weights


class GeometricMean(Aggregator):
    """Geometric loss strategy: minimise GM = (prod_k L_k)^(1/K), w_k = GM / (K L_k).

    Its direction is that of the mean of log L_k, so units of the losses do not matter; its length
    shrinks with the losses. Computed in logarithms.

    A loss of exactly 0 has nothing left to learn: its task drops out, weight 0, and K counts the
    others (ours; the gradient of GM does not exist there). If all are 0 the weights are equal.

    Raises
    ------
    ValueError
        For a negative loss, naming the task.

    **Reference** Chennupati, Sistu, Yogamani and Rawashdeh, "MultiNet++: multi-stream feature
    aggregation and geometric loss strategy for multi-task learning", CVPR workshops 2019.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "losses"
    paper = "Chennupati et al. 2019, CVPR workshops"
    cost = "O(K)"
    properties = frozenset({"scale-invariant"})

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return GM / (K L_k), shape (K,)."""
        require_non_negative(self, losses)
        left = losses > 0
        n_left = int(left.sum())
        if n_left == 0:
            return mean_weights(losses)
        log_losses = torch.where(left, losses, 1.0).log()
        exponents = log_losses.sum() / n_left - log_losses - math.log(n_left)
        # losses of 1e-320 beside some of 1e300 would overflow
        return torch.where(left, exponents.clamp_max(700.0).exp(), 0.0)
