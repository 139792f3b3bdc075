"""FAMO: log losses that fall at one rate, from losses before and after each step."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtlsk.aggregators.adam import adam_step
from mtlsk.aggregators.base import Aggregator, require_non_negative
from mtlsk.domains import Interval
from mtlsk.gramian import mean_weights

FARTHEST = math.log(1e8)
"""Bound of the change of a log loss in one step."""


class FAMO(Aggregator):
    """Fast adaptive multi-task optimisation: w_k = c z_k / L_k, z = softmax(xi), sum_k w_k = 1.

    That is the gradient of sum_k z_k log L_k at another length: w = softmax(xi - log L). After the
    update, ``observe(losses_after)`` moves the logits xi by one Adam step with weight decay gamma
    down the slope delta = (diag(z) - z z') (log L_before - log L_after): a task whose log loss fell
    more than the others' loses weight. Where nothing calls ``observe``, z stays equal.

    What is ours: a loss of exactly 0 has nothing left to learn and drops out, weight 0 (or the
    others would have none); a log loss counts as changed by at most log 1e8, where the authors'
    code adds 1e-8 to the losses, so that units do not matter. As in that code weight decay is part
    of the slope, the losses' least values are taken as 0, and the step of the logits is Adam's,
    while the paper's algorithm writes a plain one.

    Parameters
    ----------
    lr : float
        Step of the logits, in (0, inf).
    gamma : float
        Weight decay of the logits, in [0, inf).

    Attributes
    ----------
    logits_, first_moment_, second_moment_, n_adam_steps_ : float64 tensors of shape (K,)
        Memory: xi and its Adam.
    losses_before_ : float64 tensor of shape (K,)
        The losses of the last call, NaN where they have been compared. Memory.

    Raises
    ------
    ValueError
        For a negative loss, naming the task.

    **Reference** Liu, Feng, Stone and Liu, "FAMO: fast adaptive multitask optimization", NeurIPS
    2023, Algorithm 1.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "losses"
    needs_losses_after = True
    paper = "Liu et al. 2023, NeurIPS"
    cost = "O(K), and the losses of the batch after the step"
    properties = frozenset({"scale-invariant", "simplex"})
    domains = {
        "lr": Interval(0.0, math.inf, open_low=True, log=True, search=(1e-3, 1e-1)),
        "gamma": Interval(0.0, math.inf, search=(0.0, 0.01)),
    }

    def __init__(self, lr: float = 0.025, gamma: float = 0.01) -> None:
        self.lr = lr
        self.gamma = gamma

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return c z_k / L_k, on the simplex, shape (K,), and keep the losses."""
        require_non_negative(self, losses)
        k = len(losses)
        logits = self.recall("logits_", k)
        self.recall("losses_before_", k, math.nan)
        self.remember("losses_before_", losses)
        if not bool((losses > 0).any()):
            return mean_weights(losses)
        return torch.softmax(torch.where(losses > 0, logits - losses.log(), -math.inf), 0)

    def observe(self, losses_after: Tensor) -> None:
        """Move the logits by how the losses (K,) of the tasks of the last call have changed.

        Once a call: without one since, nothing is known to compare with and nothing moves. A loss
        that is not finite says nothing (the next step stops at it).
        """
        after = losses_after.double()
        require_non_negative(self, after)
        k = len(after)
        before = self.recall("losses_before_", k, math.nan)
        known = before.isfinite() & after.isfinite()
        fall = (before.log() - after.log()).clamp(-FARTHEST, FARTHEST)
        fall = torch.where(known & (before != after), fall, 0.0)  # both may be 0
        z = torch.softmax(self.recall("logits_", k), 0)
        slope = z * (fall - z @ fall)  # through the softmax
        adam_step(self, "logits_", slope, self.lr, self.gamma, moves=known)
        self.remember("losses_before_", torch.full_like(before, math.nan))
