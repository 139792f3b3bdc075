"""UncertaintyWeighting: each task's loss over its learned noise variance."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtlsk.aggregators.adam import adam_step
from mtlsk.aggregators.base import Aggregator
from mtlsk.domains import Interval

WIDEST = 30.0
"""Bound of |s_k|: weights between 1e-13 and 1e13."""
STEEPEST = 10.0
"""Bound of a slope: a loss that starts at 1e6 would fill Adam's second moment for 1000 steps."""


class UncertaintyWeighting(Aggregator):
    """Homoscedastic uncertainty: min over theta and s of sum_k exp(-s_k) L_k / 2 + s_k / 2.

    s_k = log sigma_k^2 is the log variance of a Gaussian likelihood whose squared error is L_k (the
    paper's regression case). The weights are exp(-s_k) / K: the objective times 2 / K, so that they
    sum to 1 at s = 0, where all begin. At a constant loss s_k tends to log L_k, where the task
    weighs 1 / (K L_k).

    What is ours: s is moved by an Adam of its own, one step a call down (1 - exp(-s_k) L_k) / 2
    at the s that gave the weights (the paper makes s a parameter of the net's optimizer; Adam
    because a plain step would be as long as the loss is large); that slope is bounded below by
    -10 and s by 30 either way; and a loss of zero or below leaves its s_k where it is, as the
    objective then has no minimum in s_k and the weight would grow without end.

    As s begins at 0, the direction depends on the unit of the losses: ``unit_free`` is false.

    Parameters
    ----------
    lr : float
        Step of the log variances, in (0, inf). The default is ours.

    Attributes
    ----------
    log_variance_, first_moment_, second_moment_, n_adam_steps_ : float64 tensors of shape (K,)
        Memory: s and its Adam.

    **Reference** Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses
    for scene geometry and semantics", CVPR 2018, section 3.2.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "losses"
    unit_free = False
    paper = "Kendall, Gal and Cipolla 2018, CVPR"
    cost = "O(K)"
    domains = {"lr": Interval(0.0, math.inf, open_low=True, log=True, search=(1e-3, 1e-1))}

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return exp(-s_k) / K, shape (K,), then move s."""
        k = len(losses)
        s = self.recall("log_variance_", k)
        inverse = torch.exp(-s)
        slope = ((1 - inverse * losses) / 2).clamp_min(-STEEPEST)
        moved = adam_step(self, "log_variance_", slope, self.lr, moves=losses > 0)
        self.remember("log_variance_", moved.clamp(-WIDEST, WIDEST))
        return inverse / k
