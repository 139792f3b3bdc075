"""What an engine is: task losses and a module's shared parameters -> Gramian and update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from mtlsk.component import Component, Registry


class TaskGradients(ABC):
    """The gradients of the K task losses over the P shared parameters, valid for one step.

    An engine that cannot give something raises ``NotImplementedError`` naming itself.

    Attributes
    ----------
    losses : tensor of shape (K,), with a graph
    """

    losses: Tensor

    @abstractmethod
    def gramian(self) -> Tensor:
        """Return G = J J^T, float64, on the losses' device, shape (K, K)."""

    @abstractmethod
    def products(self, weights: Tensor) -> Tensor:
        """Return G w = J (J^T w), float64, shape (K,)."""

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


class Engine(Component, ABC):
    """How the Gramian and the update are computed, with its cost and its error stated."""

    cost: ClassVar[str]
    error: ClassVar[str]

    @abstractmethod
    def differentiate(self, losses: Tensor, parameters: Sequence[Tensor]) -> TaskGradients:
        """Return the task gradients of ``losses`` (K,) over the shared ``parameters``.

        Nothing is computed before it is asked for.
        """


ENGINES: Registry[Engine] = Registry("gramian", "mtlsk.engines", Engine)
