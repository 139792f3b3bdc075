"""The exact engine: every task gradient, by one backward pass a task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from mtlsk.autodiff import task_jacobian, weighted_gradient
from mtlsk.engines.base import Engine, TaskGradients

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


class ExactGradients(TaskGradients):
    """Task gradients by autograd; J is computed when first needed and then kept for the step."""

    def __init__(self, losses: Tensor, parameters: Sequence[Tensor]) -> None:
        self.losses = losses
        self.parameters = tuple(parameters)

    @cached_property
    def jacobian(self) -> tuple[Tensor, ...]:
        """J tensor by tensor, P tensors of shape (K, numel)."""
        return task_jacobian(self.losses, self.parameters)

    def gramian(self) -> Tensor:
        """Return G = J J^T, summed in float64 over blocks of columns."""
        return gramian_of(self.jacobian, self.losses)

    def products(self, weights: Tensor) -> Tensor:
        """Return G w."""
        gramian = self.gramian()
        return gramian @ weights.to(gramian)

    def block_norms(self) -> Tensor:
        """Return the norm of each task's gradient in each parameter tensor."""
        if not self.parameters:
            return torch.zeros(
                (0, len(self.losses)), dtype=torch.float64, device=self.losses.device
            )
        return torch.stack([rows.double().norm(dim=1) for rows in self.jacobian])

    def combine(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Return J^T w from the J held, or by one weighted backward pass if there is none yet."""
        if weights.ndim == 1 and "jacobian" not in vars(self):
            return weighted_gradient(self.losses, weights, self.parameters)
        per_tensor = weights.expand(len(self.parameters), -1) if weights.ndim == 1 else weights
        return tuple(
            (w.to(rows) @ rows).reshape(p.shape)
            for w, rows, p in zip(per_tensor, self.jacobian, self.parameters, strict=True)
        )


class Exact(Engine):
    """The exact Gramian for any module: one backward pass a task, J held for the step.

    Cost: K backward passes through the shared parameters and K M numbers. Error: none beyond the
    rounding of the losses' own precision; G is summed in float64.
    """

    cost: ClassVar[str] = "K backward passes, K x M memory"
    error: ClassVar[str] = "none"

    def differentiate(self, losses: Tensor, parameters: Sequence[Tensor]) -> ExactGradients:
        """Return the task gradients, computed when asked for."""
        return ExactGradients(losses, parameters)
