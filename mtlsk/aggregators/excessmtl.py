"""ExcessMTL: exponentiated weights that follow an estimate of each task's excess risk."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.domains import Interval

LARGEST = 1e6
"""Bound of a relative excess risk: at step .01 one more such call gives a task all the weight."""


class ExcessMTL(Aggregator):
    """Weights that grow with estimated excess risks, from one number a task: a surrogate (ours).

    w_k <- w_k exp(step e_k), scaled to one sum again, e_k an estimate of how far the task's risk is
    from its least: a noisy task with a high loss that cannot fall has a small one.

    **This is not the paper's estimate.** The paper takes e_k = g_k' H_k^-1 g_k with H_k the
    diagonal of the root of all squared gradients so far, parameter by parameter. A Gramian has
    their sum only, so here H_k is that of Adagrad with one step size for the whole vector:

        e_k = |g_k|^2 / sqrt(sum_t |g_k(t)|^2), relative to its first value.

    The two agree up to a constant where the squared gradients keep their shape over the parameters.
    Division by the first value is that of the authors' code; so all begin at 1, and the first call
    leaves the weights equal.

    The estimate begins at the first gradient of a task that is not zero; without one it is 0. The
    tasks of a call share what weight they had together, so that those which are absent keep theirs.
    A relative estimate counts 1e6 at most (ours).

    Parameters
    ----------
    step : float
        Step of the exponentiated gradient, in (0, inf). The default is ours.

    Attributes
    ----------
    log_weights_ : float64 tensor of shape (K,)
        Logarithms of the weights, which sum to K. Memory.
    square_sums_, first_excess_ : float64 tensors of shape (K,)
        sum_t |g_k(t)|^2, and e_k in the first call (0 before it). Memory.

    **Reference** He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi and Zhao, "Robust multi-task learning
    with excess risks", ICML 2024: the weights' update only.
    """

    paper = "surrogate (ours) of He et al. 2024, ICML"
    cost = "O(K), from the norms"
    properties = frozenset({"simplex"})
    domains = {"step": Interval(0.0, math.inf, open_low=True, log=True, search=(1e-3, 1.0))}

    def __init__(self, step: float = 0.01) -> None:
        self.step = step

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the weights after the step, on the simplex, shape (K,)."""
        assert gramian is not None
        k = len(gramian)
        squares = gramian.diagonal().clamp_min(0)
        sums = self.recall("square_sums_", k) + squares
        excess = torch.where(sums > 0, squares / sums.sqrt(), 0.0)
        first = self.recall("first_excess_", k)
        first = torch.where(first == 0, excess, first)
        relative = torch.where(first > 0, excess / first, 0.0).clamp_max(LARGEST)
        old = self.recall("log_weights_", k)
        moved = old + self.step * relative
        moved = moved + (old.logsumexp(0) - moved.logsumexp(0))  # the sum stays
        self.remember("square_sums_", sums)
        self.remember("first_excess_", first)
        self.remember("log_weights_", moved)
        return torch.softmax(moved, 0)
