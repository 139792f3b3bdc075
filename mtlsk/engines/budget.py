"""The budget engine: the Gramian from some rows of the batch, the update from all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from mtlsk.autodiff import weighted_gradient
from mtlsk.domains import Either, Interval
from mtlsk.engines.base import Engine, Forward, TaskGradients
from mtlsk.engines.exact import AutogradGradients
from mtlsk.engines.linear import LinearGradients
from mtlsk.engines.one_label import OneLabelGradients
from mtlsk.engines.reader import Reader
from mtlsk.engines.repeats import Repeats

LEAST = 16
"""Rows below which a Gramian says too little."""


def budget_rows(n_rows: int, n_tasks: int) -> int:
    """Return max(16, 2 n / K): so many rows times K cotangents cost like two cotangents of all."""
    return min(n_rows, max(LEAST, math.ceil(2 * n_rows / n_tasks)))


class SubsetGradients(TaskGradients):
    """The Gramian from a forward pass of some rows, weighted gradients from the whole batch."""

    def __init__(
        self, losses: Tensor, shared: Sequence[Tensor], forward: Forward, rows: slice
    ) -> None:
        self.losses = losses
        self.shared = tuple(shared)
        self.forward = forward
        self.rows = rows

    @cached_property
    def part(self) -> AutogradGradients:
        """The task gradients of the rows looked at."""
        assert self.forward.again is not None
        with torch.enable_grad():
            losses, _ = self.forward.again(self.rows)
        return AutogradGradients(losses, self.shared, batched=True)

    def gramian(self) -> Tensor:
        """Return J J^T of these rows' losses."""
        return self.part.gramian()

    def block_norms(self) -> Tensor:
        """Return the norms of these rows' task gradients in each tensor."""
        return self.part.block_norms()

    def combine(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Return J^T w of all rows, by one backward pass (one a tensor for weights (P, K))."""
        if weights.ndim == 1:
            return weighted_gradient(self.losses, weights, self.shared)
        return tuple(
            weighted_gradient(self.losses, w, [p])[0]
            for p, w in zip(self.shared, weights, strict=True)
        )


class Budget(Engine):
    """Estimate the Gramian from a fixed budget of rows; the update is J^T w of all rows.

    Evenly spaced rows of the batch count (the first ones, of more than half); by default
    max(16, 2 n / K), whose K cotangents cost like two cotangents of all n rows. Nets of linear
    layers by hand (and from all rows where each has one label: that is cheaper still); other
    modules by a second forward pass of these rows and K backward passes through it. Where rows
    depend on each other (batch normalisation) or the module is random, such a pass would differ:
    the exact route is then taken and a warning says so once.

    Error: that of a Gramian from fewer rows; the gradient of a task without a label in these rows
    is zero in it. The update itself is exact for the weights that follow.

    Parameters
    ----------
    rows : int or None
        How many rows; None is max(16, 2 n / K).
    every : int
        Compute task weights in every so many steps only and keep them in between.
    """

    cost: ClassVar[str] = "K cotangents of max(16, 2 n / K) rows, and one weighted gradient"
    error: ClassVar[str] = "sampling error of a Gramian from fewer rows"
    domains = {
        **Engine.domains,
        "rows": Either(Interval(1, 10**9, integer=True, log=True, search=(16, 256)), (None,)),
    }

    def __init__(self, rows: int | None = None, every: int = 1) -> None:
        self.rows = rows
        self.every = every

    def differentiate(
        self,
        losses: Tensor,
        shared: Sequence[Tensor],
        forward: Forward | None = None,
        own: Sequence[Tensor] = (),
    ) -> TaskGradients:
        """Return the task gradients, computed when asked for."""
        if forward is None or not losses.requires_grad:
            return AutogradGradients(losses, shared)
        n = len(forward.outputs)
        m = budget_rows(n, len(losses)) if self.rows is None else min(self.rows, n)
        rows = slice(0, m * (n // m), n // m) if m < n else None
        graph = Reader.of(self).read(losses, shared, own, forward)
        if graph is not None and forward.task_of_row is not None:
            return OneLabelGradients(losses, shared, forward, graph)
        if graph is not None:
            return LinearGradients(losses, shared, forward, graph, rows)
        again = forward.again
        if rows is None or again is None or not Repeats.of(self).part(forward.outputs, rows, again):
            return AutogradGradients(losses, shared)
        return SubsetGradients(losses, shared, forward, rows)
