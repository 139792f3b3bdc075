"""Task gradients where each row has one label: one cotangent a row serves all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from mtlsk.engines.linear import LinearGradients, add_gradient, gram_of_rows
from mtlsk.linear_graph import Cotangent


class OneLabelGradients(LinearGradients):
    """The exact Gramian of a net of linear layers from batches with one label a row at most.

    Row i moves the loss of one task only, t(i), so its one cotangent d_i holds all there is:
    G_kl = sum_{t(i) = k, t(j) = l} (a_i'a_j + 1) d_i'd_j in each layer, or J_k = D_k^T A_k from
    the rows of each task, whichever is cheaper.
    """

    @cached_property
    def cotangents(self) -> list[Cotangent]:
        """The one cotangent of each row at each layer, (n, 1, q)."""
        return self.graph.cotangents(self.top.unsqueeze(1), name="tasks")

    @cached_property
    def blocks(self) -> dict[int, Tensor]:
        """Nothing: J is not made here."""
        return {}

    @cached_property
    def _task_of_row(self) -> Tensor:
        task = self.forward.task_of_row
        assert task is not None
        return task

    @cached_property
    def _order(self) -> Tensor:
        """The rows, task by task."""
        return torch.argsort(self._task_of_row)

    @cached_property
    def _counts_of_tasks(self) -> list[int]:
        """How many rows each task has (on the CPU: the numbers are looked at)."""
        counts: list[int] = torch.bincount(self._task_of_row, minlength=len(self.losses)).tolist()
        return counts

    def _layer_gramian(self, c: Cotangent, a: Tensor | None, bias: bool) -> Tensor:
        d = c.value.squeeze(1)
        n, q = d.shape
        k, p = len(self.losses), 0 if a is None else a.shape[1]
        by_task = n * q * p + k * k * p * q + k * CALL  # each task is a product of its own
        if not d.is_cuda and by_task < n * n * (p + q):
            return self._by_task(d, a, bias)
        gram = d.new_zeros(n, n) if a is None else a @ a.T
        gram = gram.add_(float(bias)).mul_(d @ d.T).double()
        place = self._task_of_row
        sums = gram.new_zeros(k, n).index_add_(0, place, gram)
        return gram.new_zeros(k, k).index_add_(1, place, sums)

    def _by_task(self, d: Tensor, a: Tensor | None, bias: bool) -> Tensor:
        """Return the Gramian of one layer from J, each task's rows in a product of their own."""
        counts, order = self._counts_of_tasks, self._order
        k, q = len(counts), d.shape[1]
        parts = torch.split(d[order], counts)
        total = torch.zeros((k, k), dtype=torch.float64)
        if a is not None:
            rows = d.new_empty(k, q, a.shape[1])
            for row, mine, inputs in zip(rows, parts, torch.split(a[order], counts), strict=True):
                torch.mm(mine.T, inputs, out=row)
            total += gram_of_rows(rows.view(k, -1))
        if bias:
            total += gram_of_rows(torch.stack([mine.sum(0) for mine in parts]))
        return total

    def _gradient(self, parameters: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of w'L over some parameters: each row's cotangent is at hand."""
        if "cotangents" not in vars(self):
            return super()._gradient(parameters, weights)
        wanted = {id(p) for p in parameters}
        of_row = weights.to(self.top)[self._task_of_row].unsqueeze(1)
        found: dict[int, Tensor] = {}
        for c, layer in zip(self.cotangents, self.graph.layers, strict=True):
            if id(layer.weight) in wanted or id(layer.bias) in wanted:
                add_gradient(found, layer, c.value.squeeze(1) * of_row)
        return tuple(found[id(p)] if id(p) in found else torch.zeros_like(p) for p in parameters)


CALL = 1e5
"""What a product costs beside its multiplications, in multiplications."""
