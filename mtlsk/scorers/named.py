"""SCORERS: all scorers by name, which share one Gramian where they are asked together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from mtlsk.estimators import r2_per_task
from mtlsk.scorers.certificate import OF_GRAMIAN, CertificateScorer
from mtlsk.scorers.inside import rounding_of, unwrap

Scorer = Callable[[Any, Any, Any], float]


class WorstR2:
    """Return the smallest R^2 of the tasks, each over its labelled rows."""

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Return the score."""
        return float(np.nanmin(r2_per_task(y, estimator.predict(X))))

    def _accept_sample_weight(self) -> bool:
        """Say that scikit-learn need not pass sample_weight."""
        return False

    def __repr__(self) -> str:
        return "WorstR2()"


class Scores(dict[str, Scorer]):
    """Scorers by name, and themselves a scorer of them all: a dict of scores.

    ``scoring=SCORERS`` makes scikit-learn call the whole, which takes one Gramian for all that
    need it. A certificate that is not applicable is NaN there, with a warning; called alone its
    scorer raises ValueError.
    """

    def __call__(self, estimator: Any, X: Any, y: Any) -> dict[str, float]:
        """Return the score of each."""
        found: dict[str, float] = {}
        shared: tuple[Any, ...] | None = None
        for name, scorer in self.items():
            if isinstance(scorer, CertificateScorer) and scorer.of_gramian and shared is None:
                net, inner_X, inner_y = unwrap(estimator, X, y)
                shared = (*net.task_gramian(inner_X, inner_y), rounding_of(net))
            try:
                if isinstance(scorer, CertificateScorer) and scorer.of_gramian:
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


FIRST = ("neg_condition_number", "neg_h", "min_cosine")
SCORERS: Scores = Scores(
    {
        "worst_r2": WorstR2(),
        **{name: CertificateScorer(name) for name in (*FIRST, *OF_GRAMIAN)},
    }
)
"""All scorers by name; the dict may be given to ``scoring=`` as it is."""
