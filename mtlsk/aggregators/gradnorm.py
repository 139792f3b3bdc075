"""GradNorm: gradient norms in proportion to how slowly each task learns."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.domains import Interval

LEAST = 1e-6
"""The least weight, of those whose mean is 1."""


class GradNorm(Aggregator):
    """Gradient normalisation: weights whose norms G_k = w_k |g_k| follow mean(G) r_k^alpha.

    r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0)) is the relative inverse training rate. Each call
    returns the weights and then takes one step down sum_k |G_k - target_k|, the targets held
    constant: w_k <- w_k - lr |g_k| sign(G_k - target_k) / mean_j |g_j|, kept at 1e-6 or more and
    scaled so that they sum to K again. (The memory sums to K as in the paper; the weights returned
    are 1 / K of it, so that they sum to 1.)

    With alpha 0 or 1 the weights settle where every norm has its target; with another the targets
    do not add up to the norms there are (the mean of r^alpha is not 1), and they settle nearby.

    What is ours: the norms are those over all shared parameters (the paper takes the last shared
    layer), the division by their mean, which makes the step free of units, and a plain step (the
    paper leaves the optimizer of w open). A ratio L_k / L_k(0) is 1 where L_k(0) is not positive,
    0 where L_k is negative. Tasks with a zero gradient neither move nor count in the means; the
    others share what weight they had together, and so do the tasks that are there where some are
    not.

    Parameters
    ----------
    alpha : float
        Strength of the pull towards one training rate, in [0, inf); 0 asks for equal norms.
    lr : float
        Step of the weights, in (0, inf).

    Attributes
    ----------
    weights_ : float64 tensor of shape (K,)
        The learned weights; they sum to K. Memory.
    first_losses_ : float64 tensor of shape (K,)
        L_k(0), the loss in the first call that had the task. Memory.

    **Reference** Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: gradient normalization for
    adaptive loss balancing in deep multitask networks", ICML 2018, eq. (1), (2) and Algorithm 1.
    """

    paper = "Chen et al. 2018, ICML"
    cost = "O(K), from the norms"
    properties = frozenset({"simplex"})
    domains = {
        "alpha": Interval(0.0, math.inf, search=(0.0, 3.0)),
        "lr": Interval(0.0, math.inf, open_low=True, log=True, search=(1e-3, 1e-1)),
    }

    def __init__(self, alpha: float = 1.5, lr: float = 0.025) -> None:
        self.alpha = alpha
        self.lr = lr

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the weights, on the simplex, shape (K,), then move them."""
        assert gramian is not None
        k = len(losses)
        first = self.recall("first_losses_", k, math.nan)
        first = torch.where(first.isnan(), losses, first)
        self.remember("first_losses_", first)
        w = self.recall("weights_", k, 1.0)
        squares = gramian.diagonal()
        there = squares > 1e-30 * squares.max()
        if bool(there.any()):
            moved = w.clone()
            norms = squares[there].sqrt()
            ratios = torch.where(first > 0, losses / first, 1.0).clamp(0.0, 1e100)
            moved[there] = self._moved(w[there], norms / norms.mean(), ratios[there])
            self.remember("weights_", moved)
        return w / w.sum()

    def _moved(self, w: Tensor, norms: Tensor, ratios: Tensor) -> Tensor:
        """Return the weights after the step; norms have mean 1, ratios are L / L(0)."""
        mean = float(ratios.mean())
        r = ratios / mean if mean > 0 else torch.ones_like(ratios)
        reached = w * norms
        target = reached.mean() * r**self.alpha  # inf at most
        off = reached - target
        # equal up to rounding is equal: the slope is 0 there
        slope = torch.where(off.abs() > 1e-12 * reached, norms * off.sign(), 0.0)
        moved = (w - self.lr * slope).clamp_min(LEAST)
        return moved * (w.sum() / moved.sum())
