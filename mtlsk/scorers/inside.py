"""The net inside an estimator, with X and y as that net sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mtlsk.estimators import MultiTaskNet
from mtlsk.estimators.targets import Targets, target_names

ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-5}
"""Relative error of the entries of a Gramian by the net's precision: ten times that of a batch."""
COARSE = 1e-2
"""The same for half precision."""


def unwrap(estimator: Any, X: Any = None, y: Any = None) -> tuple[MultiTaskNet, Any, Any]:
    """Return the fitted net inside an estimator with X and y as that net sees them.

    Goes through Pipeline (X transformed), TransformedTargetRegressor (y transformed) and searches
    (their ``best_estimator_``), nested in any order. X and y may be None and then stay it.

    Raises
    ------
    TypeError
        If there is no mtlsk net inside.
    """
    if isinstance(estimator, MultiTaskNet | TransformedTargetRegressor):
        check_is_fitted(estimator)
    if isinstance(estimator, MultiTaskNet):
        return estimator, X, y
    if isinstance(estimator, Pipeline):
        if X is not None and len(estimator) > 1:
            X = estimator[:-1].transform(X)
        return unwrap(estimator[-1], X, y)
    if isinstance(estimator, TransformedTargetRegressor):
        if y is not None:
            transformed = estimator.transformer_.transform(np.asarray(y).reshape(len(y), -1))
            y = np.asarray(transformed).reshape(np.shape(y))
        return unwrap(estimator.regressor_, X, y)
    if hasattr(estimator, "best_estimator_"):
        return unwrap(estimator.best_estimator_, X, y)
    raise TypeError(
        f"{type(estimator).__name__} holds no mtlsk net; certificates and displays need one, alone "
        "or in a Pipeline, TransformedTargetRegressor or search"
    )


def task_gradients(estimator: Any, X: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Return Gramian (K, K) and losses (K,) of the net inside ``estimator`` on X and y."""
    net, X, y = unwrap(estimator, X, y)
    return net.task_gramian(X, y)


def rounding_of(net: MultiTaskNet) -> float:
    """Return the relative error that the entries of a net's Gramian may have."""
    dtype = next((p.dtype for p in net.module_.parameters()), torch.float32)
    return ROUNDING.get(dtype, COARSE)


def net_inside(estimator: Any) -> MultiTaskNet | None:
    """Return the fitted net inside a Pipeline, TransformedTargetRegressor or search, or None."""
    while not isinstance(estimator, MultiTaskNet):
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif hasattr(estimator, "regressor_") or hasattr(estimator, "best_estimator_"):
            estimator = getattr(estimator, "regressor_", None) or estimator.best_estimator_
        else:
            return None
    return estimator


def names_of(estimator: Any, y: Any, n_tasks: int) -> list[str]:
    """Return the tasks' names: those of y's columns, of the net inside, or y0, y1, ..."""
    names = target_names(y)
    if names is not None and len(names) == n_tasks:
        return names
    net = net_inside(estimator)
    if net is None:
        return ["y"] if n_tasks == 1 else [f"y{k}" for k in range(n_tasks)]
    return list(map(str, net.task_names_))


def numeric_tasks(estimator: Any, n_tasks: int) -> list[bool]:
    """Return of each task whether it is a regression; of estimators not ours, by their type."""
    net = net_inside(estimator)
    if net is None:
        return [not is_classifier(estimator)] * n_tasks
    return [task.classes is None for task in net.tasks_]


def columns_of(estimator: Any, X: Any, y: Any) -> tuple[list[Any], list[Any]]:
    """Return labels and predictions of the whole estimator, task by task, each of shape (n,).

    ValueError where they differ in their number, or in that of their rows.
    """
    truth = Targets(y).columns
    prediction = Targets(estimator.predict(X)).columns
    check_consistent_length(prediction[0], truth[0])
    if len(prediction) != len(truth):
        raise ValueError(f"y has {len(truth)} tasks, but the prediction has {len(prediction)}")
    return truth, prediction
