"""What an aggregator is: (Gramian of the task gradients, task losses) -> task weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mtlsk.component import Component, Registry
from mtlsk.simplex import Array


class Aggregator(Component, ABC):
    """How K task gradients become one update d = J^T w.

    Subclasses implement :meth:`task_weights`; a third party's whole contribution is such a class,
    its ``domains`` and ``check_aggregator`` in a test.

    Attributes
    ----------
    needs : "gramian" or "losses"
        What :meth:`task_weights` looks at; ``"losses"`` (the Gramian is then None) buys a step of
        one backward pass.
    needs_losses_after : bool
        Whether the step calls :meth:`observe` with the losses after the update.
    active_ : tuple of int or None
        Which tasks the rows of this call are, of all K; None outside a net and where all are
        there. Stateful aggregators index their memory by it.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "gramian"
    needs_losses_after: ClassVar[bool] = False
    active_: tuple[int, ...] | None = None

    @abstractmethod
    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the weights w of the update d = J^T w.

        Parameters
        ----------
        gramian : float64 tensor of shape (K, K) on the CPU, or None if ``needs == "losses"``
            G = J J^T of the gradients of the task losses over the shared parameters.
        losses : float64 tensor of shape (K,) on the CPU

        Returns
        -------
        float64 tensor of shape (K,)
        """

    def observe(self, losses_after: Tensor) -> None:
        """Take in the task losses (K,) after the update, if ``needs_losses_after``."""

    def _memory(self) -> list[str]:
        return [name for name in super()._memory() if name != "active_"]


AGGREGATORS: Registry[Aggregator] = Registry("aggregator", "mtlsk.aggregators", Aggregator)


def require_gramian(gramian: Tensor | None) -> Tensor:
    """Return ``gramian``, or raise for a missing, non-square or non-finite one (task named)."""
    if gramian is None:
        raise ValueError("this aggregator needs the Gramian G = J J^T, got None")
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1] or len(gramian) == 0:
        raise ValueError(f"the Gramian must have shape (K, K), got {tuple(gramian.shape)}")
    if not math.isfinite(float(gramian.numpy().sum())):  # quicker than a look at every element
        finite = gramian.isfinite()
        if not bool(finite.all()):
            task = int((~finite).sum(0).argmax())
            raise ValueError(
                f"the gradient of task {task} is not finite: its Gramian row has NaN/inf"
            )
    return gramian.to(torch.float64)


class SolvedDual(Aggregator):
    """An aggregator that solves for dual weights, each time from where they were positive before.

    From one step to the next the support seldom changes much, and on the right one the solution is
    a single linear solve. The memory makes a call faster, never its answer another one.

    Attributes
    ----------
    support_ : list of int
        The tasks whose dual weight was positive when they were last there. Memory.
    """

    support_: list[int]

    def recall_support(self, kept: Sequence[int]) -> list[int]:
        """Return which of the tasks kept of this call were in the support; [] if none is known."""
        known = set(getattr(self, "support_", ()))
        return [i for i, task in enumerate(self._named(kept)) if task in known]

    def keep_support(self, dual: Array, kept: Sequence[int]) -> None:
        """Remember which dual weights of the tasks kept are positive (beyond rounding)."""
        tasks = self._named(kept)
        others = set(getattr(self, "support_", ())).difference(tasks)
        now = [task for task, w in zip(tasks, dual.tolist(), strict=True) if w > 1e-14]
        self.support_ = sorted(others.union(now)) if others else now

    def _named(self, kept: Sequence[int]) -> Sequence[int]:
        """Return the indices among all K tasks of rows of this call."""
        return kept if self.active_ is None else [self.active_[i] for i in kept]


def scaled(gramian: Tensor) -> tuple[Array, Sequence[int]]:
    """Return (G / max_k |g_k|^2 as numpy without the zero rows, the indices of the others).

    A task whose gradient is zero has nothing to lose to first order: keeping it in a min-norm or
    worst-task problem would stop all the others, so it is left out (ours).
    """
    g = gramian.numpy()
    squares = g.diagonal().tolist()  # Python is quicker here than several calls of numpy
    largest = max(squares)
    if min(squares) > 1e-30 * largest:
        return g / largest, range(len(g))
    kept = [i for i, square in enumerate(squares) if square > 1e-30 * largest]
    return (g[np.ix_(kept, kept)] / largest if kept else np.zeros((0, 0))), kept


def spread(weights: Array, kept: Sequence[int], n_tasks: int) -> Tensor:
    """Return weights of the kept tasks as (K,) with zeros for the others."""
    if len(kept) == n_tasks:
        return torch.from_numpy(weights)
    full = np.zeros(n_tasks)
    full[kept] = weights
    return torch.from_numpy(full)
