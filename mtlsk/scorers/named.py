"""SCORERS: all scorers by name, which share one Gramian where they are asked together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from mtlsk.estimators import r2_per_task
from mtlsk.estimators.targets import missing
from mtlsk.scorers.certificate import OF_GRAMIAN, CertificateScorer
from mtlsk.scorers.inside import columns_of, net_inside, numeric_tasks, rounding_of, unwrap

Scorer = Callable[[Any, Any, Any], float]


class WorstR2:
    """Return the smallest R^2 of the regressions, each over its labelled rows."""

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Return the score; ValueError where there is no regression."""
        truth, prediction = columns_of(estimator, X, y)
        numeric = numeric_tasks(estimator, len(truth))
        if not any(numeric):
            raise ValueError("worst_r2 is of regressions, and all tasks are classes")
        return min_of(task_scores(truth, prediction, numeric), numeric)

    def _accept_sample_weight(self) -> bool:
        """Say that scikit-learn need not pass sample_weight."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class WorstScore(WorstR2):
    """Return the smallest score of a task: R^2 of a regression, accuracy of classes."""

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Return the score."""
        truth, prediction = columns_of(estimator, X, y)
        numeric = numeric_tasks(estimator, len(truth))
        return min_of(task_scores(truth, prediction, numeric), [True] * len(truth))


def task_scores(truth: list[Any], prediction: list[Any], numeric: list[bool]) -> list[float]:
    """Return R^2 or accuracy of each task over its labelled rows, NaN without enough of them."""
    scores = []
    for y, f, number in zip(truth, prediction, numeric, strict=True):
        there = ~missing(y)
        if number:
            of_task = np.asarray(y, dtype=object)[there].astype(float)
            scores.append(float(r2_per_task(of_task, f[there])[0]) if there.any() else math.nan)
        else:
            scores.append(float(np.mean(y[there] == f[there])) if there.any() else math.nan)
    return scores


def min_of(scores: list[float], wanted: list[bool]) -> float:
    """Return the smallest of the scores wanted that are not NaN; NaN if there is none."""
    found = [s for s, want in zip(scores, wanted, strict=True) if want and not math.isnan(s)]
    return min(found, default=math.nan)


class Scores(dict[str, Scorer]):
    """Scorers by name, and themselves a scorer of them all: a dict of scores.

    ``scoring=SCORERS`` makes scikit-learn call the whole, which takes one Gramian for all that
    need it, and leaves out ``worst_r2`` where all tasks are classes. A certificate that is not
    applicable is NaN there, with a warning; called alone its scorer raises ValueError.
    """

    def __call__(self, estimator: Any, X: Any, y: Any) -> dict[str, float]:
        """Return the score of each."""
        found: dict[str, float] = {}
        shared: list[Any] | None = None
        for name, scorer in self.items():
            if type(scorer) is WorstR2 and not has_regression(estimator):
                continue  # there is no such score of classes
            of_gramian = isinstance(scorer, CertificateScorer) and scorer.of_gramian
            if of_gramian and shared is None:
                shared = gramian_if_any(estimator, X, y)
            if of_gramian and not shared:
                found[name] = math.nan
                continue
            try:
                if isinstance(scorer, CertificateScorer) and of_gramian:
                    assert shared is not None
                    found[name] = scorer.value(shared[0], shared[1], rounding=shared[2])
                else:
                    found[name] = scorer(estimator, X, y)
            except ValueError as error:
                if not isinstance(scorer, CertificateScorer):
                    raise
                warnings.warn(f"{name} is not applicable, so NaN: {error}", stacklevel=2)
                found[name] = math.nan
        return found

    def _accept_sample_weight(self) -> bool:
        """Say that scikit-learn need not pass sample_weight."""
        return False


def gramian_if_any(estimator: Any, X: Any, y: Any) -> list[Any]:
    """Return Gramian, losses and rounding; an empty list, and a warning, where there are none.

    That is where a task has no label, or one of a class that the fit has not seen.
    """
    net, X, y = unwrap(estimator, X, y)
    try:
        return [*net.task_gramian(X, y), rounding_of(net)]
    except ValueError as error:
        warnings.warn(f"no Gramian of these rows, so certificates are NaN: {error}", stacklevel=3)
        return []


def has_regression(estimator: Any) -> bool:
    """Say whether some task of an estimator is a regression."""
    net = net_inside(estimator)
    return not is_classifier(estimator) if net is None else any(numeric_tasks(net, 0))


FIRST = ("neg_condition_number", "neg_h", "min_cosine")
SCORERS: Scores = Scores(
    {
        "worst_r2": WorstR2(),
        "worst_score": WorstScore(),
        **{name: CertificateScorer(name) for name in (*FIRST, *OF_GRAMIAN)},
    }
)
"""All scorers by name; the dict may be given to ``scoring=`` as it is."""
