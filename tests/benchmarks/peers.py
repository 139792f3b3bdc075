"""The same step by other means: hand-written loops over the tasks, torch's own, TorchJD's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.problem import Batch, Problem
from tests.benchmarks.routes import Route

try:
    from torchjd.aggregation import MGDA, Constant
    from torchjd.autogram import Engine
    from torchjd.autojac import backward, jac_to_grad, mtl_backward

    HAS_TORCHJD = True
except ImportError:
    HAS_TORCHJD = False


class SeparateGradients(Route):
    """A backward pass a task, J and J J^T whole, as reference implementations write it."""

    def fill(self, batch: Batch) -> Tensor:
        """Fill the gradients with the mean of the rows of J."""
        losses = self.losses(batch)
        rows = []
        for loss in losses:
            gradients = torch.autograd.grad(loss, self.shared, retain_graph=True)
            rows.append(torch.cat([g.reshape(-1) for g in gradients]))
        jacobian = torch.stack(rows)
        self.gramian = jacobian @ jacobian.T  # what its weights would come from
        update = self.mean @ jacobian
        self.write(self.shared, torch.split(update, [p.numel() for p in self.shared]))
        self.write(self.own, torch.autograd.grad(losses.mean(), self.own))
        return self.mean


class BatchedGradients(Route):
    """All tasks in one vectorised backward pass of torch (``is_grads_batched``)."""

    def fill(self, batch: Batch) -> Tensor:
        """Fill the gradients with the mean of the rows of J."""
        losses = self.losses(batch)
        rows = torch.autograd.grad(
            losses,
            self.shared,
            torch.eye(len(losses), dtype=losses.dtype),
            retain_graph=True,
            is_grads_batched=True,
        )
        blocks = [b.flatten(1) for b in rows]
        self.gramian = sum(b @ b.T for b in blocks)  # what its weights would come from
        self.write(self.shared, [self.mean @ b for b in blocks])
        self.write(self.own, torch.autograd.grad(losses.mean(), self.own))
        return self.mean


class TorchJDBackward(Route):
    """TorchJD's ``backward`` and ``jac_to_grad``: J, then its rows' combination.

    With no aggregator the weights are constant and no Gramian is computed: J alone counts.
    """

    def __init__(self, problem: Problem, aggregator: Any = None) -> None:
        super().__init__(problem)
        self.aggregator = Constant(self.mean) if aggregator is None else aggregator

    def fill(self, batch: Batch) -> Tensor:
        """Fill the gradients by TorchJD's aggregator."""
        self.optimizer.zero_grad()
        losses = self.losses(batch)
        backward(losses, inputs=self.shared, retain_graph=True)
        weights = jac_to_grad(self.shared, self.aggregator)
        self.write(self.own, torch.autograd.grad(losses.mean(), self.own))
        return self.mean if weights is None else weights


class TorchJDMultiTask(Route):
    """TorchJD's ``mtl_backward``: through each head, then J of the shared features."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.aggregator = Constant(torch.ones_like(self.mean))

    def fill(self, batch: Batch) -> Tensor:
        """Fill the gradients with the sum of those of L_k / K."""
        self.optimizer.zero_grad()
        net: Any = self.module
        features = net.trunk(batch.x)
        losses = self.problem.losses(net.head(features), batch)
        shares = list(losses * self.mean)
        mtl_backward(
            shares,
            features=features,
            tasks_params=[self.own] * len(shares),
            shared_params=self.shared,
            retain_graph=True,  # the heads are one layer
        )
        jac_to_grad(self.shared, self.aggregator)
        return self.mean


class TorchJDAutogram(Route):
    """TorchJD's ``autogram``: the Gramian without J, then one weighted backward pass."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        net: Any = self.module
        self.engine = Engine(net.trunk, batch_dim=None)

    def fill(self, batch: Batch) -> Tensor:
        """Fill the gradients of the mean loss, after the Gramian that its weights would need."""
        self.optimizer.zero_grad()
        losses = self.losses(batch)
        self.gramian = self.engine.compute_gramian(losses)
        losses.backward(self.mean)  # type: ignore[no-untyped-call]
        return self.mean


def torchjd_mgda(problem: Problem) -> TorchJDBackward:
    """Return TorchJD's ``backward`` with its MGDA: a whole step of another package."""
    return TorchJDBackward(problem, MGDA())
