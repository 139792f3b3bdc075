"""Linear scalarization: a fixed weighted sum of the task losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.domains import Simplex


class LinearScalarization(Aggregator):
    """The gradient of the weighted sum of the losses, w = weights: the baseline of every method.

    Parameters
    ----------
    weights : list of K floats, or None
        Non-negative weights of the tasks, taken as they are; None gives each 1/K (the mean loss).

    Raises
    ------
    ValueError
        If there is not one weight a task.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "losses"
    cost = "none"
    domains = {"weights": Simplex(optional=True)}

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = weights

    @property
    def properties(self) -> frozenset[str]:
        """Equal weights are those of the mean; others are taken as they are."""
        if self.weights is None:
            return frozenset({"simplex", "mean length"})
        return frozenset({"simplex"} if math.isclose(sum(self.weights), 1) else ())

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the fixed weights of the active tasks, shape (K,)."""
        n_tasks = len(losses)
        if self.weights is None:
            return torch.full((n_tasks,), 1 / n_tasks, dtype=torch.float64)
        return self.entries("weights", n_tasks)
