"""Regularizer: a penalty of the parameters, lowered by a proximal step after each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from mtlsk.component import Component, Registry

Rates = Mapping[Tensor, float]
"""Parameter -> the learning rate that its optimizer's group has in this step."""


class Regularizer(Component, ABC):
    """A penalty R of a module's parameters: training minimises (1/K) sum_k L_k + R.

    R has kinks, where gradients do not exist and where one wants to end up (zeros): after each
    step of the optimizer on the losses comes a proximal step on R,
    theta <- argmin_t R(t) + |t - theta|^2 / (2 lr).

    The aggregator does not see R: it weighs tasks, and R is none. For plain ``"SGD"`` the two
    together are the proximal gradient method. With optimizers that scale coordinates (Adam) it is
    the decoupled form, as in AdamW: what is reached is not the minimum of the sum (our reading).
    """

    @abstractmethod
    def check(self, module: nn.Module) -> None:
        """Raise ValueError, in one line, for a module whose R is not defined."""

    @abstractmethod
    def penalty(self, module: nn.Module) -> Tensor:
        """Return R, a number."""

    @abstractmethod
    def shrink(self, module: nn.Module, rates: Rates) -> None:
        """Take the proximal step, in place."""

    def statistics(self, module: nn.Module) -> dict[str, float]:
        """Return what ``history_`` records of an epoch."""
        return {"penalty": float(self.penalty(module).detach())}


REGULARIZERS: Registry[Regularizer] = Registry("regularizer", "mtlsk.regularizers", Regularizer)
