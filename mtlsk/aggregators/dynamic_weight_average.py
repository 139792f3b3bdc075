"""DynamicWeightAverage: more weight to the tasks whose loss fell least in the last epoch."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.domains import Either, Interval

UNKNOWN = math.nan
"""Mean loss of an epoch that has not been."""
STEEPEST = 1e12
"""Bound of a ratio of mean losses: beyond it the softmax has long chosen."""


class DynamicWeightAverage(Aggregator):
    """Dynamic weight average: w = softmax(r / T), r_k = L_k(t - 1) / L_k(t - 2).

    L_k(t) is the mean loss of the task over epoch t, over the calls in which it has labels. The
    weights are equal in the first two epochs. (The paper's sum to K: this is 1 / K of them.)

    Where the ratio is undefined it is 1 (ours): for a task with fewer than two epochs behind it,
    and where an earlier mean loss was not positive. An epoch in which a task had no label at all
    is none for it.

    Parameters
    ----------
    temperature : float
        T in (0, inf): large for equal weights. The paper takes 2.
    period : int, or None
        How many calls make an epoch; None where its end is told by ``end_epoch()``, as ``fit``
        does and as a loop of one's own can.

    Attributes
    ----------
    last_mean_, mean_before_ : float64 tensors of shape (K,)
        L_k(t - 1) and L_k(t - 2), NaN where unknown. Memory.
    loss_sum_, n_losses_ : float64 tensors of shape (K,)
        Sum and number of the losses of this epoch. Memory.
    n_calls_ : int
        How many calls this epoch has had, if there is a ``period``. Memory.

    **Reference** Liu, Johns and Davison, "End-to-end multi-task learning with attention", CVPR
    2019, eq. (7).
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "losses"
    paper = "Liu, Johns and Davison 2019, CVPR"
    cost = "O(K)"
    properties = frozenset({"simplex"})
    domains = {
        "temperature": Interval(0.0, math.inf, open_low=True, log=True, search=(0.1, 10.0)),
        "period": Either(Interval(1, math.inf, integer=True, log=True, search=(1, 1000)), (None,)),
    }

    last_mean_: Tensor
    mean_before_: Tensor
    loss_sum_: Tensor
    n_losses_: Tensor
    n_calls_: int

    def __init__(self, temperature: float = 2.0, period: int | None = None) -> None:
        self.temperature = temperature
        self.period = period

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return softmax(r / T) of the epochs before, shape (K,), and take in the losses."""
        k = len(losses)
        last = self.recall("last_mean_", k, UNKNOWN)
        before = self.recall("mean_before_", k, UNKNOWN)
        known = (last >= 0) & (before > 0)  # false for NaN
        r = torch.where(known, last / before, 1.0).clamp_max(STEEPEST)
        self.remember("loss_sum_", self.recall("loss_sum_", k) + losses)
        self.remember("n_losses_", self.recall("n_losses_", k) + 1)
        if self.period is not None:
            self.n_calls_ = getattr(self, "n_calls_", 0) + 1
            if self.n_calls_ >= self.period:
                self.n_calls_ = 0
                self._close_epoch()
        return torch.softmax((r - r.max()) / self.temperature, 0)

    def end_epoch(self) -> None:
        """Make the means of the losses since the last epoch, unless a ``period`` does."""
        if self.period is None:
            self._close_epoch()

    def _close_epoch(self) -> None:
        """Move on by an epoch all tasks that had a loss in it."""
        if getattr(self, "n_losses_", None) is None:
            return
        last, before = self.last_mean_, self.mean_before_
        had = self.n_losses_ > 0
        mean = self.loss_sum_ / self.n_losses_.clamp_min(1)
        self.mean_before_ = torch.where(had, last, before)
        self.last_mean_ = torch.where(had, mean, last)
        self.loss_sum_ = torch.zeros_like(mean)
        self.n_losses_ = torch.zeros_like(mean)
