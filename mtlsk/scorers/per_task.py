"""Any metric, a score a task, as one scorer that returns a dict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names

from mtlsk.component import closest
from mtlsk.estimators.targets import missing
from mtlsk.scorers.inside import columns_of, names_of, numeric_tasks

Metric = str | Callable[[Any, Any], float]
KINDS_OF_METRIC = ("regression", "classification")
DEFAULTS = {"regression": "r2", "classification": "accuracy"}
Metrics = Metric | Sequence[Metric] | Mapping[str, Metric | Sequence[Metric]] | None


class PerTaskScorer:
    """A dict of scores, one a metric and task; see :func:`per_task_scorer`."""

    def __init__(self, metrics: Metrics = None) -> None:
        given = DEFAULTS if metrics is None else metrics
        if not isinstance(given, Mapping):
            given = dict.fromkeys(KINDS_OF_METRIC, given)
        for kind in given:
            if kind not in KINDS_OF_METRIC:
                raise ValueError(
                    f"metrics names {kind!r}{closest(str(kind), KINDS_OF_METRIC)}; allowed: "
                    f"{', '.join(KINDS_OF_METRIC)}"
                )
        self.metrics = {kind: as_list(word) for kind, word in given.items()}

    def __call__(self, estimator: Any, X: Any, y: Any) -> dict[str, float]:
        """Return ``{"r2 price": ..., ...}``."""
        truth, prediction = columns_of(estimator, X, y)
        names = names_of(estimator, y, len(truth))
        numeric = numeric_tasks(estimator, len(truth))
        if len(set(names)) < len(names):
            raise ValueError(f"tasks need different names to be scored apart; they are {names}")
        found = {}
        for metric in unique([m for of_kind in self.metrics.values() for m in of_kind]):
            for k, name in enumerate(names):
                if metric not in self.metrics.get(KINDS_OF_METRIC[not numeric[k]], []):
                    continue
                there = ~missing(truth[k])
                one = one_task(estimator, X, prediction[k], k, there, numeric[k])
                label = truth[k][there]
                if numeric[k]:
                    label = label.astype(float)
                found[f"{name_of(metric)} {name}"] = score(metric, one, label)
        return found

    def _accept_sample_weight(self) -> bool:
        """Say that scikit-learn need not pass sample_weight."""
        return False

    def __repr__(self) -> str:
        words = {kind: [name_of(m) for m in of_kind] for kind, of_kind in self.metrics.items()}
        every = list(words.values())
        return f"per_task_scorer({every[0] if every.count(every[0]) == 2 else words!r})"


def unique(metrics: Sequence[Metric]) -> list[Metric]:
    """Return the metrics without repetition, in their order."""
    return [m for i, m in enumerate(metrics) if m not in metrics[:i]]


def as_list(metrics: Metric | Sequence[Metric]) -> list[Metric]:
    """Return one metric or several as a list; ValueError for an unknown one."""
    several = isinstance(metrics, Sequence) and not isinstance(metrics, str)
    found: list[Metric] = list(metrics) if several else [metrics]  # type: ignore
    if not found:
        raise ValueError("metrics is empty; name one, such as 'r2'")
    for metric in found:
        if isinstance(metric, str) and metric not in get_scorer_names():
            near = closest(metric, get_scorer_names())
            if f"neg_{metric}" in get_scorer_names():  # scikit-learn's name for it
                near = f" (did you mean 'neg_{metric}'?)"
            raise ValueError(
                f"unknown metric {metric!r}{near}; use a name of "
                "sklearn.metrics.get_scorer_names() or a function (y_true, y_pred) -> float"
            )
        if not isinstance(metric, str) and not callable(metric):
            raise ValueError(
                f"metric {metric!r} is neither a name nor a function (y_true, y_pred) -> float"
            )
    return found


def name_of(metric: Metric) -> str:
    """Return the name of a metric."""
    return metric if isinstance(metric, str) else str(getattr(metric, "__name__", repr(metric)))


def score(metric: Metric, one: OneTask, label: NDArray[Any]) -> float:
    """Return a task's score over its labelled rows, NaN where there is none."""
    if len(label) == 0:
        return math.nan
    if not isinstance(metric, str):
        return float(metric(label, one.prediction))
    return float(get_scorer(metric)(one, np.zeros((len(label), 1)), label))


class OneTask(BaseEstimator):  # type: ignore[misc]
    """One task's predictions as a fitted estimator, so that every scorer of scikit-learn fits."""

    def __init__(self, prediction: Any) -> None:
        self.prediction = prediction

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the predictions."""
        found: NDArray[Any] = self.prediction
        return found


class OneRegression(RegressorMixin, OneTask):  # type: ignore[misc]
    """A numeric task."""


class OneClassification(ClassifierMixin, OneTask):  # type: ignore[misc]
    """A task with classes."""

    classes_: NDArray[Any]
    probabilities: Callable[[], NDArray[Any]]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probabilities of the classes."""
        return self.probabilities()


def one_task(
    estimator: Any,
    X: Any,
    prediction: NDArray[Any],
    k: int,
    rows: NDArray[np.bool_],
    numeric: bool,
) -> OneTask:
    """Return task k of a fitted estimator on some rows."""
    if numeric:
        return OneRegression(prediction[rows].astype(float))
    one = OneClassification(prediction[rows])
    classes = estimator.classes_
    one.classes_ = np.asarray(classes[k] if isinstance(classes, list) else classes)
    one.probabilities = lambda: _of_task(estimator.predict_proba(X), k)[rows]
    return one


def _of_task(probabilities: Any, k: int) -> NDArray[Any]:
    """Return task k's part of what ``predict_proba`` gives for several tasks: a list, or one."""
    return np.asarray(probabilities[k] if isinstance(probabilities, list) else probabilities)


def per_task_scorer(metrics: Metrics = None) -> PerTaskScorer:
    """Return one scorer of all tasks: a dict with a score a metric and task, greater is better.

    The keys are ``"r2 price"``: metric and task, named by the columns of y, by the net, or y0,
    y1, ... Rows without a label of a task (NaN in y) drop out of that task's scores; a task without
    any label among the rows scores NaN. Predictions are those of the whole estimator, so scores
    are in the units of y.

    Parameters
    ----------
    metrics : str, function, list of these, or dict of "regression" and "classification" to them
        What is scored; None is ``{"regression": "r2", "classification": "accuracy"}``.
        Scorer names of scikit-learn (``"r2"``, ``"neg_mean_absolute_error"``), or functions
        (y_true, y_pred) -> float of one task, greater is better; module-level ones can be pickled.

    Raises
    ------
    ValueError
        For an unknown metric, at once.
    """
    return PerTaskScorer(metrics)
