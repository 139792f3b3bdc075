"""What an aggregator is: (Gramian of the task gradients, task losses) -> task weights."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mtlsk.component import Component, Registry, shown
from mtlsk.simplex import Array

PROPERTIES = {
    "non-conflicting": "<g_k, d> >= 0 for all k, wherever some direction lowers all losses",
    "scale-invariant": "the direction of d does not depend on the units of any one loss",
    "simplex": "the weights are non-negative and sum to 1",
    "stationary": "d = 0 at every Pareto-stationary point",
    "mean length": "|d| = |g0|, the length of the mean gradient",
}
"""What may be claimed of an aggregator, in ``properties``; check_aggregator proves it."""


class Aggregator(Component, ABC):
    """How K task gradients become one update d = J^T w.

    Subclasses implement :meth:`task_weights`; a third party's whole contribution is such a class,
    its ``domains`` and ``check_aggregator`` in a test. What it is called with has been checked:
    finite, of the right shapes, float64; what it returns is checked too.

    Weights are at the scale of the mean loss: where a paper sums over tasks, ours is that sum
    divided by K, so that equal gradients give the mean gradient at any K.

    Attributes
    ----------
    needs : "gramian" or "losses"
        What :meth:`task_weights` looks at; ``"losses"`` (the Gramian is then None) buys a step of
        one backward pass.
    needs_losses_after : bool
        Whether the step calls :meth:`observe` with the losses after the update.
    stochastic : bool
        Whether :meth:`task_weights` draws from torch's CPU generator (``fit`` seeds it).
    unit_free : bool
        Whether the direction is the same in any one unit common to all losses.
    paper, cost : str
        The source ("Yu et al. 2020") and the cost of the weights, for the tables.
    properties : frozenset of str
        Which of ``PROPERTIES`` hold for these parameters.
    active_ : tuple of int or None
        Which tasks the rows of this call are, of all K; None outside a net and where all are
        there. Stateful aggregators index their memory by it: see :meth:`recall`.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "gramian"
    needs_losses_after: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    unit_free: ClassVar[bool] = True
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    active_: tuple[int, ...] | None = None

    @property
    def properties(self) -> frozenset[str]:
        """Which of ``PROPERTIES`` hold for these parameters."""
        return frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check what ``task_weights`` of the subclass is called with, and what it returns."""
        super().__init_subclass__(**kwargs)
        if "task_weights" in vars(cls):
            setattr(cls, "task_weights", checked(cls.task_weights))  # noqa: B010 (a method)

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

        Raises
        ------
        ValueError
            Naming the task, for a gradient or loss that is not finite.
        """

    def observe(self, losses_after: Tensor) -> None:
        """Take in the task losses (K,) after the update, if ``needs_losses_after``."""

    def end_epoch(self) -> None:
        """Take in that an epoch has ended; ``fit`` and :meth:`mtlsk.Descent.end_epoch` say so."""

    def tasks_of_call(self, n_tasks: int) -> list[int]:
        """Return the indices among all K tasks of the ``n_tasks`` rows of this call."""
        return list(range(n_tasks)) if self.active_ is None else list(self.active_)

    def recall(self, name: str, n_tasks: int, start: float = 0.0, *, pairs: bool = False) -> Tensor:
        """Return the memory ``name`` of the tasks of this call, (n_tasks,).

        Tasks met for the first time have ``start``. With ``pairs``, (n_tasks, n_tasks).
        """
        tasks = self.tasks_of_call(n_tasks)
        known: Tensor | None = getattr(self, name, None)
        least = max(tasks, default=-1) + 1
        n_known = 0 if known is None else len(known)
        if known is None or n_known < least:
            shape = (least, least) if pairs else (least,)
            more = torch.full(shape, start, dtype=torch.float64)
            if known is not None and pairs:
                more[:n_known, :n_known] = known
            elif known is not None:
                more[:n_known] = known
            known = more
            setattr(self, name, known)
        if tasks == list(range(len(known))):
            return known.clone()  # quicker than by index
        return known[tasks][:, tasks] if pairs else known[tasks]

    def remember(self, name: str, values: Tensor) -> None:
        """Replace the memory ``name`` of the tasks of this call, which was recalled before."""
        tasks = self.tasks_of_call(len(values))
        known: Tensor = getattr(self, name)
        if tasks == list(range(len(known))):
            known = values.to(known.dtype, copy=True)
        else:
            known = known.clone()
            at = torch.tensor(tasks)
            known[(at[:, None], at) if values.ndim == 2 else at] = values
        setattr(self, name, known)

    def entries(self, name: str, n_tasks: int) -> Tensor:
        """Return the list parameter ``name``, one number a task, for the tasks of this call (K,).

        ValueError unless it has an entry for each.
        """
        given: Sequence[float] = getattr(self, name)
        if self.active_ is None:
            fits, tasks = len(given) == n_tasks, f"{n_tasks} tasks"
        else:
            fits, tasks = max(self.active_) < len(given), f"a task {max(self.active_)}"
        if not fits:
            raise ValueError(
                f"{type(self).__name__}: {name} has {len(given)} entries for {tasks}; "
                "give one a task"
            )
        return torch.tensor(list(given), dtype=torch.float64)[self.tasks_of_call(n_tasks)]

    def _memory(self) -> list[str]:
        return [name for name in super()._memory() if name != "active_"]


AGGREGATORS: Registry[Aggregator] = Registry("aggregator", "mtlsk.aggregators", Aggregator)


def checked(task_weights: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``task_weights`` with its arguments and its result checked."""

    @functools.wraps(task_weights)
    def call(self: Aggregator, gramian: Tensor | None, losses: Tensor) -> Tensor:
        # people's own loops may hand over what has a graph
        gramian = None if gramian is None else gramian.detach()
        gramian = require_gramian(self, gramian) if self.needs == "gramian" else None
        losses = losses.detach()
        losses = require_losses(self, losses, gramian)
        weights = task_weights(self, gramian, losses)
        if not isinstance(weights, Tensor) or weights.shape != losses.shape:
            what = tuple(weights.shape) if isinstance(weights, Tensor) else shown(weights)
            raise ValueError(
                f"{type(self).__name__}.task_weights returned {what} for {len(losses)} tasks; "
                f"it must return a tensor of shape ({len(losses)},)"
            )
        return weights

    return call


def require_gramian(aggregator: Aggregator, gramian: Tensor | None) -> Tensor:
    """Return ``gramian`` as float64, or raise for a missing, non-square or non-finite one."""
    if gramian is None:
        raise ValueError(f"{type(aggregator).__name__} needs the Gramian G = J J^T, got None")
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1] or len(gramian) == 0:
        raise ValueError(f"the Gramian must have shape (K, K), got {tuple(gramian.shape)}")
    if not math.isfinite(float(gramian.sum())):  # quicker than a look at every element
        finite = gramian.isfinite()
        if not bool(finite.all()):
            own = ~finite.diagonal()  # a bad gradient spoils its column, and its own norm
            bad = own if bool(own.any()) else (~finite).any(0)
            task = aggregator.tasks_of_call(len(gramian))[int(bad.nonzero()[0])]
            raise ValueError(
                f"the gradient of task {task} is not finite: its Gramian row has NaN or inf"
            )
    return gramian if gramian.dtype == torch.float64 else gramian.double()


def require_losses(aggregator: Aggregator, losses: Tensor, gramian: Tensor | None) -> Tensor:
    """Return ``losses`` as float64, or raise for a wrong shape or a loss that is not finite."""
    n_tasks = len(gramian) if gramian is not None else losses.numel()
    if losses.ndim != 1 or len(losses) != n_tasks or n_tasks == 0:
        wanted = "K" if gramian is None else str(n_tasks)
        raise ValueError(f"the losses must have shape ({wanted},), got {tuple(losses.shape)}")
    if not math.isfinite(float(losses.sum())) and not bool(losses.isfinite().all()):
        place = int((~losses.isfinite()).nonzero()[0])
        task = aggregator.tasks_of_call(n_tasks)[place]
        raise ValueError(f"the loss of task {task} is {float(losses[place])}: not finite")
    return losses if losses.dtype == torch.float64 else losses.double()


def require_non_negative(aggregator: Aggregator, losses: Tensor) -> None:
    """Raise ValueError, naming the task, for a negative loss where its logarithm is taken."""
    if bool((losses < 0).any()):
        place = int((losses < 0).nonzero()[0])
        task = aggregator.tasks_of_call(len(losses))[place]
        raise ValueError(
            f"the loss of task {task} is {float(losses[place])}: {type(aggregator).__name__} takes "
            "its logarithm and needs losses >= 0; shift the loss or use another aggregator"
        )


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
