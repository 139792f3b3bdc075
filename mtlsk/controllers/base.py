"""What a controller is: StepRecord -> changes to live parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch

from mtlsk.component import Component, Registry
from mtlsk.engines.base import TaskGradients
from mtlsk.record import StepRecord


class Controller(Component, ABC):
    """What adapts while training: a record of the step in, changes to live parameters out.

    Changes are in the estimator's own words: ``{"optimizer__momentum": .84}`` acts in this very
    step, ``aggregator__*``, ``task_scale`` and ``task_groups`` from the next on. Parameters of the
    estimator are never altered, only live objects, so a clone of a fitted net starts afresh.
    """

    def bind(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at the optimizer before the first step; raise ValueError if it cannot be driven."""

    @abstractmethod
    def adjust(self, record: StepRecord, gradients: TaskGradients) -> Mapping[str, Any]:
        """Return the changes to make, empty for none.

        Parameters
        ----------
        record : StepRecord
            What the step saw and did.
        gradients : TaskGradients
            The task gradients behind it, valid for this step only.
        """


CONTROLLERS: Registry[Controller] = Registry("controller", "mtlsk.controllers", Controller)
