"""SmoothTchebycheff: the Tchebycheff scalarization with a smooth maximum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.aggregators.tchebycheff import REFERENCE, weighted_gaps
from mtlsk.domains import Interval, Simplex


class SmoothTchebycheff(Aggregator):
    """Minimise mu log sum_k exp(lambda_k (L_k - z_k) / mu): w_k = lambda_k softmax(...)_k.

    mu -> 0 is :class:`~mtlsk.aggregators.Tchebycheff`, mu -> inf the weighted sum with
    w_k = lambda_k / K. Any mu > 0 makes the maximum differentiable, so that descent does not jump
    from task to task.

    lambda is scaled to mean 1 over all K tasks (ours): with equal preferences the weights sum to 1,
    while unequal ones keep the length of the gradient of this objective. A task with lambda_k = 0
    never counts (ours). The authors' code for training nets takes logarithms of losses relative to
    those of a warm-up; here the losses are as they are, and ``task_scale`` of the estimator sets
    their units.

    mu and the reference are in units of the losses: ``unit_free`` is false.

    Parameters
    ----------
    mu : float
        Width of the smooth maximum, in (0, inf), in units of the losses. The default is ours, for
        losses of standardised targets.
    preference : list of K floats, or None
        lambda, non-negative; its sum does not matter. None: equal.
    reference : float, list of K floats, or None
        The reference (utopia) point z; None is 0. A number for all changes nothing where the
        preference is equal.

    Raises
    ------
    ValueError
        If a list has not one entry a task.

    **Reference** Lin, Zhang, Yang, Liu, Wang and Zhang, "Smooth Tchebycheff scalarization for
    multi-objective optimization", ICML 2024.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "losses"
    unit_free = False
    paper = "Lin et al. 2024, ICML"
    cost = "O(K)"
    domains = {
        "mu": Interval(0.0, math.inf, open_low=True, log=True, search=(0.01, 10.0)),
        "preference": Simplex(optional=True),
        "reference": REFERENCE,
    }

    def __init__(
        self,
        mu: float = 1.0,
        preference: Sequence[float] | None = None,
        reference: float | Sequence[float] | None = None,
    ) -> None:
        self.mu = mu
        self.preference = preference
        self.reference = reference

    @property
    def properties(self) -> frozenset[str]:
        """On the simplex where all tasks are preferred alike."""
        return frozenset({"simplex"} if self.preference is None else ())

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return lambda_k softmax(lambda (L - z) / mu)_k, shape (K,)."""
        scale, gaps = weighted_gaps(self, self.preference, self.reference, losses)
        top = gaps.max()
        if not bool(top.isfinite()):  # no task of this call is preferred at all
            return torch.zeros_like(losses)
        return scale * torch.softmax((gaps - top) / self.mu, 0)
