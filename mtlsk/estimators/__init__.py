"""Estimators with the interface of scikit-learn."""

from mtlsk.estimators.net import MultiTaskNet
from mtlsk.estimators.regressor import MultiTaskRegressor, r2_per_task
from mtlsk.estimators.scalarization_front import ScalarizationFront
from mtlsk.estimators.trusted import SKOPS_TRUSTED

__all__ = [
    "SKOPS_TRUSTED",
    "MultiTaskNet",
    "MultiTaskRegressor",
    "ScalarizationFront",
    "r2_per_task",
]
