"""Estimators with the interface of scikit-learn."""

from mtlsk.estimators.classifier import MultiTaskClassifier
from mtlsk.estimators.decomposed import DecomposedRegressor
from mtlsk.estimators.net import MultiTaskNet
from mtlsk.estimators.randomized_front import RandomizedFront
from mtlsk.estimators.reduced_rank import ReducedRankRegressor
from mtlsk.estimators.regressor import MultiTaskRegressor
from mtlsk.estimators.scalarization_front import ScalarizationFront
from mtlsk.estimators.scores import r2_per_task
from mtlsk.estimators.trusted import SKOPS_TRUSTED

__all__ = [
    "SKOPS_TRUSTED",
    "DecomposedRegressor",
    "MultiTaskClassifier",
    "MultiTaskNet",
    "MultiTaskRegressor",
    "RandomizedFront",
    "ReducedRankRegressor",
    "ScalarizationFront",
    "r2_per_task",
]
