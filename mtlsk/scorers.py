"""Scorers: certificates and per-task metrics as ``(estimator, X, y) -> float``, greater is better.

.. code:: python

    cross_validate(pipeline, X, y, scoring=mtlsk.SCORERS)
    GridSearchCV(net, grid, scoring=mtlsk.SCORERS, refit="worst_r2")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mtlsk import certificates, gramian
from mtlsk.estimators import MultiTaskNet, r2_per_task

Scorer = Callable[[Any, Any, Any], float]


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


def worst_r2(estimator: Any, X: Any, y: Any) -> float:
    """Return the smallest R^2 of the tasks."""
    return float(np.nanmin(r2_per_task(y, estimator.predict(X))))


def neg_condition_number(estimator: Any, X: Any, y: Any) -> float:
    """Return -kappa(G) of the task gradients: near -1 they are orthogonal and of one length."""
    return -gramian.condition_number(task_gradients(estimator, X, y)[0])


def neg_h(estimator: Any, X: Any, y: Any) -> float:
    """Return -(1/K) sum_k L_k^2 of the task losses, in the units of y as the net sees it."""
    return -certificates.h(task_gradients(estimator, X, y)[1])


def min_cosine(estimator: Any, X: Any, y: Any) -> float:
    """Return the smallest cosine between two task gradients: below 0 two tasks conflict."""
    return float(gramian.min_cosine(task_gradients(estimator, X, y)[0]))


SCORERS: dict[str, Scorer] = {
    "worst_r2": worst_r2,
    "neg_condition_number": neg_condition_number,
    "neg_h": neg_h,
    "min_cosine": min_cosine,
}
"""All scorers by name; the dict may be given to ``scoring=`` as it is."""
