"""Scorers: certificates and per-task metrics as ``(estimator, X, y) -> float``, greater is better.

.. code:: python

    cross_validate(pipeline, X, y, scoring=mtlsk.SCORERS)
    GridSearchCV(net, grid, scoring=mtlsk.SCORERS, refit="worst_r2")
    GridSearchCV(net, grid, scoring=per_task_scorer(["r2", "neg_mean_absolute_error"]), refit=...)
"""

from mtlsk.scorers.certificate import CertificateScorer, make_certificate_scorer
from mtlsk.scorers.inside import rounding_of, task_gradients, unwrap
from mtlsk.scorers.named import SCORERS, Scorer, Scores, WorstR2
from mtlsk.scorers.per_task import PerTaskScorer, per_task_scorer

__all__ = [
    "SCORERS",
    "CertificateScorer",
    "PerTaskScorer",
    "Scorer",
    "Scores",
    "WorstR2",
    "make_certificate_scorer",
    "per_task_scorer",
    "rounding_of",
    "task_gradients",
    "unwrap",
]
