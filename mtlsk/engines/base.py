"""What an engine is: task losses and a module's shared parameters -> Gramian and update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mtlsk.autodiff import weighted_gradient
from mtlsk.component import Component, Registry
from mtlsk.domains import Interval
from mtlsk.linear_graph import Columns

Again = Callable[[slice | None], tuple[Tensor, Tensor]]
"""Rows of the batch, or None for all -> (task losses (K,), outputs), evaluated again."""


@dataclass(frozen=True, eq=False)
class Forward:
    """What is known about how the K task losses of a batch came about: it buys cheaper routes.

    Attributes
    ----------
    outputs : tensor of shape (n, W), with a graph
        The losses depend on the parameters through these only.
    columns : Columns
        Task k's loss depends on its own columns of the outputs only.
    task_of_row : tensor of n int64, or None
        The one task that each row has a label of, where no row has more than one.
    again : callable or None
        Evaluates the losses, of all rows or some, at the parameters' present values, in the same
        random state; with or without a graph as the caller's mode is.
    """

    outputs: Tensor
    columns: Columns
    task_of_row: Tensor | None = None
    again: Again | None = None

    def of(self, tasks: Sequence[int]) -> Forward:
        """Return what is known about the losses of some of the tasks."""
        slices = [self.columns.slices[k] for k in tasks]
        place = self.task_of_row
        if place is not None:
            new = torch.zeros(len(self.columns), dtype=torch.int64)
            new[list(tasks)] = torch.arange(len(tasks))
            place = new.to(place.device)[place]
        again = self.again

        def some(rows: slice | None) -> tuple[Tensor, Tensor]:
            assert again is not None
            losses, outputs = again(rows)
            return losses[list(tasks)], outputs

        return Forward(
            self.outputs,
            Columns(slices, self.columns.width),
            place,
            None if again is None else some,
        )


class TaskGradients(ABC):
    """The gradients of the K task losses over the P shared parameters, valid for one step.

    An engine that cannot give something raises ``NotImplementedError`` naming itself.

    Attributes
    ----------
    losses : tensor of shape (K,), with a graph
    shared : tuple of P tensors
    """

    losses: Tensor
    shared: tuple[Tensor, ...]

    @abstractmethod
    def gramian(self) -> Tensor:
        """Return G = J J^T, float64, on the losses' device, shape (K, K)."""

    @abstractmethod
    def block_norms(self) -> Tensor:
        """Return |g_k| restricted to each parameter tensor, float64, shape (P, K)."""

    @abstractmethod
    def combine(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Return J^T w, a tensor a parameter; may be called again with other weights.

        Parameters
        ----------
        weights : tensor of shape (K,), or (P, K) for other weights in each parameter tensor
        """

    def products(self, weights: Tensor) -> Tensor:
        """Return G w = J (J^T w), float64, shape (K,)."""
        gramian = self.gramian()
        return gramian @ weights.to(gramian)

    def combine_own(self, weights: Tensor, own: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the gradient of w'L (w of shape (K,)) over parameters that are not shared."""
        return weighted_gradient(self.losses, weights, own)


class Engine(Component, ABC):
    """How the Gramian and the update are computed, with its cost and its error stated.

    Attributes
    ----------
    every : int
        The task weights are computed in every so many steps and kept in between.
    cost, error : str
        One line each, for the tables.
    knows_block_norms : bool
        Whether its task gradients have ``block_norms``.
    """

    cost: ClassVar[str]
    error: ClassVar[str]
    knows_block_norms: ClassVar[bool] = True
    domains = {"every": Interval(1, 1000, integer=True, log=True)}
    every: int

    @abstractmethod
    def differentiate(
        self,
        losses: Tensor,
        shared: Sequence[Tensor],
        forward: Forward | None = None,
        own: Sequence[Tensor] = (),
    ) -> TaskGradients:
        """Return the task gradients of ``losses`` (K,) over the ``shared`` parameters.

        Nothing is computed before it is asked for.

        Parameters
        ----------
        losses : tensor of shape (K,), with a graph
        shared, own : sequences of tensors
            The parameters that tasks share, and the others.
        forward : Forward or None
            What is known about how the losses came about; with None every module is treated alike.
        """


ENGINES: Registry[Engine] = Registry("gramian", "mtlsk.engines", Engine)
