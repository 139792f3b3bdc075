"""What a way to take a training step is, and the plain one that all are compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlsk import Descent
from mtlsk.descent import split_parameters
from mtlsk.engines import Forward
from tests.benchmarks.problem import Batch, Problem


class Route(ABC):
    """One way to train a net: it fills the gradients, and a fused AdamW takes the step."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.module = problem.module()
        k = problem.setting.tasks
        self.shared, self.own = split_parameters(self.module, k)
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=1e-3, weight_decay=0.0, fused=True
        )
        self.mean = torch.full((k,), 1 / k, dtype=problem.dtype)

    @abstractmethod
    def fill(self, batch: Batch) -> Tensor:
        """Fill ``.grad``: J^T w of shared parameters, the mean loss's of the heads; return w."""

    def step(self, number: int) -> None:
        """Take the step of a number."""
        self.fill(self.problem.batch(number))
        self.optimizer.step()

    def losses(self, batch: Batch) -> Tensor:
        """Return the task losses (K,), with a graph."""
        return self.problem.losses(self.module(batch.x), batch)

    def write(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Write the gradients of some parameters."""
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g.view_as(p)


class Plain(Route):
    """The scalarized step: mean loss, one backward pass."""

    def fill(self, batch: Batch) -> Tensor:
        """Fill the gradients of the mean loss."""
        self.optimizer.zero_grad()
        loss = self.problem.mean_loss(self.module(batch.x), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return self.mean if batch.counts is None else (batch.counts > 0) / (batch.counts > 0).sum()


class Ours(Route):
    """A step of ``Descent``.

    Parameters
    ----------
    problem : Problem
    aggregator, gramian : config grammar
    again : bool
        Whether the engine may evaluate the batch again.
    """

    def __init__(
        self, problem: Problem, aggregator: Any, gramian: Any = "auto", again: bool = True
    ) -> None:
        super().__init__(problem)
        self.again = again
        self.descent = Descent(
            self.module,
            self.optimizer,
            aggregator,
            n_tasks=problem.setting.tasks,
            gramian=gramian,
        )

    def fill(self, batch: Batch) -> Tensor:
        """Fill the gradients by the aggregator and the engine."""
        outputs = self.module(batch.x)

        def again(rows: slice | None) -> tuple[Tensor, Tensor]:
            part = batch.part(rows)
            outputs = self.module(part.x)
            return self.problem.losses(outputs, part), outputs

        forward = Forward(
            outputs, self.problem.columns, batch.task_of_row, again if self.again else None
        )
        losses = self.problem.losses(outputs, batch)
        return self.descent.backward(losses, batch.present, forward).weights
