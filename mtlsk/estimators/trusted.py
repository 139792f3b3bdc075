"""SKOPS_TRUSTED: the types in a net's skops file that skops does not know and may trust."""

from __future__ import annotations

from typing import Any

from skorch.dataset import Dataset, ValidSplit

from mtlsk.aggregators import AGGREGATORS
from mtlsk.controllers import CONTROLLERS
from mtlsk.engines import ENGINES
from mtlsk.estimators.batches import batches
from mtlsk.estimators.classifier import MultiTaskClassifier
from mtlsk.estimators.decomposed import DecomposedRegressor
from mtlsk.estimators.net import MultiTaskNet
from mtlsk.estimators.randomized_front import RandomizedFront
from mtlsk.estimators.reduced_rank import ReducedRankRegressor
from mtlsk.estimators.regressor import MultiTaskRegressor
from mtlsk.modules import CRITERIA, CharLM, HardSharing, HolomorphicSharing, Task
from mtlsk.optimizers import OPTIMIZERS
from mtlsk.regularizers import REGULARIZERS


def _trusted() -> list[str]:
    always: list[Any] = [
        MultiTaskRegressor,
        MultiTaskClassifier,
        MultiTaskNet,
        RandomizedFront,
        ReducedRankRegressor,
        DecomposedRegressor,
        HardSharing,
        CharLM,
        HolomorphicSharing,
        Task,
        batches,
        Dataset,
        ValidSplit,
    ]
    always += [criterion for of_kind in CRITERIA.values() for criterion in of_kind.values()]
    for registry in (AGGREGATORS, CONTROLLERS, ENGINES, OPTIMIZERS, REGULARIZERS):
        always += registry.own().values()
    return sorted({f"{thing.__module__}.{thing.__name__}" for thing in always})


SKOPS_TRUSTED: list[str] = _trusted()
"""For ``skops.io.load(file, trusted=SKOPS_TRUSTED)``: what mtlsk puts into the file of a net.

The estimators, their modules, tasks and criteria, the loader and the class of data sets,
and, where they are given as classes or objects rather than names, our aggregators, controllers,
engines, optimizers and regularizers, and skorch's ``ValidSplit``. A module, criterion or callback
of your own is not in it: look at ``skops.io.get_untrusted_types`` and add what you trust. None of
these types runs code of the file's: a net's state there is data (see
:class:`~mtlsk.estimators.pickles.Pickles`), its tensors are read with ``weights_only=True``.
"""
