"""What a controller is: StepRecord -> changes to live parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch

from mtlsk.component import Component, Registry
from mtlsk.engines.base import TaskGradients
from mtlsk.record import StepRecord


class Change(NamedTuple):
    """A new value of something live, and why: reasons are kept in the history.

    A reason that is the same text in every step ("cosine of successive updates") makes one entry
    an epoch; one with figures in it makes one entry each time.
    """

    value: Any
    reason: str = ""


@dataclass(frozen=True)
class Live:
    """The live objects of a training, to look at in :meth:`Controller.bind`.

    Never change them, but for splitting the optimizer's groups: what it remembers belongs to the
    parameters, not to groups.

    Attributes
    ----------
    optimizer : torch optimizer
    aggregator : Aggregator
    task_map : TaskMap
    task_names : tuple of str
    shared : tuple of tensors
        The shared parameters, in the order of ``StepRecord.direction``.
    """

    optimizer: torch.optim.Optimizer
    aggregator: Any
    task_map: Any
    task_names: tuple[str, ...]
    shared: tuple[torch.Tensor, ...] = ()


class Controller(Component, ABC):
    """What adapts while training: a record of the step in, changes to live parameters out.

    Changes are in the estimator's own words: ``{"lr": Change(.01, "kappa 31 > 10")}``. Those of
    the optimizer (``lr``, ``optimizer__momentum``, ``optimizer__param_groups__0__momentum``) act
    in this very step, ``aggregator__*``, ``task_scale`` and ``task_groups`` from the next on.
    Parameters of the estimator are never altered, only live objects, so a clone of a fitted net
    starts afresh.

    Attributes
    ----------
    needs_gramian : bool
        Whether :meth:`adjust` looks at ``record.gramian`` or ``record.task_gramian``. They are
        None even so in steps whose weights are kept from an earlier one (``every``).
    drives : frozenset of str
        What it alone may change, or must stay as it is: :class:`Chain` refuses two of one thing.
    exact : bool
        Whether an estimated Gramian (engines budget and features) would not do.
    paper : str
        The source, for the tables.
    """

    drives: ClassVar[frozenset[str]] = frozenset()
    exact: ClassVar[bool] = False
    paper: ClassVar[str] = ""

    @classmethod
    def fits(cls, aggregator: type) -> bool:
        """Say whether it can drive an aggregator of this class; a study samples those only."""
        return True

    @property
    def needs_gramian(self) -> bool:
        """Whether :meth:`adjust` looks at the Gramians of the record."""
        return False

    _live: Live

    def bind(self, live: Live) -> None:
        """Look at the live objects before the first step; ValueError if they cannot be driven.

        They are kept as ``self._live`` for :meth:`adjust`; a pickle leaves them out.
        """
        self._live = live

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, without what the next training binds again."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_live"}

    @abstractmethod
    def adjust(self, record: StepRecord, gradients: TaskGradients) -> Mapping[str, Any]:
        """Return the changes to make, each a value or a :class:`Change`; empty for none.

        Parameters
        ----------
        record : StepRecord
            What the step saw and did.
        gradients : TaskGradients
            The task gradients behind it, valid for this step only.
        """


CONTROLLERS: Registry[Controller] = Registry("controller", "mtlsk.controllers", Controller)
