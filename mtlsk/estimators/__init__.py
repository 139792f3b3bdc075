"""Estimators with the interface of scikit-learn."""

from mtlsk.estimators.net import MultiTaskNet
from mtlsk.estimators.regressor import MultiTaskRegressor, r2_per_task

__all__ = ["MultiTaskNet", "MultiTaskRegressor", "r2_per_task"]
