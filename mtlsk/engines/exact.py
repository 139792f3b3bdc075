"""The exact engine: every task gradient, by the cheapest exact route the net allows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from mtlsk.autodiff import task_jacobian, weighted_gradient
from mtlsk.domains import Choice
from mtlsk.engines.base import Engine, Forward, TaskGradients
from mtlsk.engines.linear import LinearGradients
from mtlsk.engines.one_label import OneLabelGradients
from mtlsk.engines.reader import Reader

BLOCK = 1 << 16
"""Columns of J summed at a time: fp32 products of 2 M columns would lose 1e-4."""


def gramian_of(jacobian: Sequence[Tensor], losses: Tensor) -> Tensor:
    """Return G = J J^T (K, K) in float64 of the J of K losses, given as tensors (K, numel)."""
    k = len(losses)
    total = torch.zeros((k, k), dtype=torch.float64, device=losses.device)
    for rows in jacobian:
        for block in torch.split(rows, BLOCK, dim=1):
            wide = block.double()
            total += wide @ wide.T
    return total


class AutogradGradients(TaskGradients):
    """Task gradients by autograd; J is computed when first needed and then kept for the step."""

    def __init__(self, losses: Tensor, shared: Sequence[Tensor], *, batched: bool = False) -> None:
        self.losses = losses
        self.shared = tuple(shared)
        self.batched = batched

    @cached_property
    def jacobian(self) -> tuple[Tensor, ...]:
        """J tensor by tensor, P tensors of shape (K, numel)."""
        return task_jacobian(self.losses, self.shared, batched=self.batched)

    def gramian(self) -> Tensor:
        """Return G = J J^T, summed in float64 over blocks of columns."""
        return gramian_of(self.jacobian, self.losses)

    def block_norms(self) -> Tensor:
        """Return the norm of each task's gradient in each parameter tensor."""
        if not self.shared:
            return torch.zeros(
                (0, len(self.losses)), dtype=torch.float64, device=self.losses.device
            )
        return torch.stack([rows.double().norm(dim=1) for rows in self.jacobian])

    def combine(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Return J^T w from the J held, or by one weighted backward pass if there is none yet."""
        if weights.ndim == 1 and "jacobian" not in vars(self):
            return weighted_gradient(self.losses, weights, self.shared)
        per_tensor = weights.expand(len(self.shared), -1) if weights.ndim == 1 else weights
        return tuple(
            (w.to(rows) @ rows).reshape(p.shape)
            for w, rows, p in zip(per_tensor, self.jacobian, self.shared, strict=True)
        )


class Exact(Engine):
    """The exact Gramian, by the cheapest exact route that the net allows.

    The rule, also that of ``gramian="auto"``: 1. nets whose graph is made of linear layers,
    elementwise functions and sums, where each row of the batch has one label at most: one
    cotangent a row. 2. Such nets otherwise: the K cotangents of all layers by one matrix product
    a layer, no backward pass through the net and no J. 3. Any other module (convolution,
    embedding, normalisation, a layer used twice, ...): K backward passes, J is held for the step.

    Error: none beyond the rounding of the losses' own precision, about 1e-6 of |g_k| |g_l| in
    float32.

    Parameters
    ----------
    route : "auto", "linear" or "autograd"
        ``"autograd"`` takes the third route always; ``"linear"`` never takes the first.
    every : int
        Compute task weights in every so many steps only and keep them in between.
    """

    cost: ClassVar[str] = (
        "linear layers by hand: about 1 + .2 K plain steps; other modules: K backward passes"
    )
    error: ClassVar[str] = "none"
    domains = {**Engine.domains, "route": Choice("auto", "linear", "autograd")}

    def __init__(self, route: str = "auto", every: int = 1) -> None:
        self.route = route
        self.every = every

    def differentiate(
        self,
        losses: Tensor,
        shared: Sequence[Tensor],
        forward: Forward | None = None,
        own: Sequence[Tensor] = (),
    ) -> TaskGradients:
        """Return the task gradients, computed when asked for."""
        graph = (
            None if self.route == "autograd" else Reader.of(self).read(losses, shared, own, forward)
        )
        if graph is None or forward is None:
            return AutogradGradients(losses, shared)
        if forward.task_of_row is not None and self.route == "auto":
            return OneLabelGradients(losses, shared, forward, graph)
        return LinearGradients(losses, shared, forward, graph)
