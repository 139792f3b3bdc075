"""Task gradients where each row has one label: one cotangent a row serves all tasks."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from mtlsk.engines.linear import LinearGradients, gram_of_rows
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
    def _segments(self) -> list[Tensor]:
        """The rows of each task (on the CPU: their numbers are looked at)."""
        order = torch.argsort(self._task_of_row)
        counts = torch.bincount(self._task_of_row, minlength=len(self.losses))
        return list(torch.split(order, counts.tolist()))

    def _layer_gramian(self, c: Cotangent, a: Tensor | None, bias: bool) -> Tensor:
        d = c.value.squeeze(1)
        n, q = d.shape
        k, p = len(self.losses), 0 if a is None else a.shape[1]
        by_task = n * q * p + k * k * p * q + k * 3e5  # each task is a product of its own
        if not d.is_cuda and by_task < n * n * (p + q):
            parts = (
                [] if a is None else [(d[rows].T @ a[rows]).reshape(-1) for rows in self._segments]
            )
            total = gram_of_rows(torch.stack(parts)) if parts else torch.zeros(())
            if bias:
                total = total + gram_of_rows(d.new_zeros(k, q).index_add(0, self._task_of_row, d))
            return total
        gram = (a @ a.T if a is not None else d.new_zeros(n, n)).add_(float(bias)) * (d @ d.T)
        sums = gram.new_zeros(k, n, dtype=torch.float64).index_add(
            0, self._task_of_row, gram.double()
        )
        return torch.zeros_like(sums[:, :k]).index_add(1, self._task_of_row, sums)
