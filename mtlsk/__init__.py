"""Multi-task learning as a parameter: aggregators, controllers, certificates for scikit-learn."""

from importlib import import_module
from typing import Any

from mtlsk.aggregators import Aggregator
from mtlsk.callbacks import ConflictLog
from mtlsk.certify import certify
from mtlsk.controllers import Controller
from mtlsk.descent import Descent, DivergenceError
from mtlsk.displays import (
    ConflictDisplay,
    LossesDisplay,
    TrajectoryDisplay,
    WeightsDisplay,
    plot_conflict,
    plot_losses,
    plot_trajectory,
    plot_weights,
)
from mtlsk.engines import Engine
from mtlsk.estimators import (
    SKOPS_TRUSTED,
    MultiTaskClassifier,
    MultiTaskNet,
    MultiTaskRegressor,
    ScalarizationFront,
)
from mtlsk.record import StepRecord
from mtlsk.scorers import SCORERS

__all__ = [
    "SCORERS",
    "SKOPS_TRUSTED",
    "Aggregator",
    "ConflictDisplay",
    "ConflictLog",
    "Controller",
    "Descent",
    "DivergenceError",
    "Engine",
    "LossesDisplay",
    "MultiTaskClassifier",
    "MultiTaskNet",
    "MultiTaskRegressor",
    "ScalarizationFront",
    "StepRecord",
    "TrajectoryDisplay",
    "WeightsDisplay",
    "certify",
    "plot_conflict",
    "plot_losses",
    "plot_trajectory",
    "plot_weights",
]  # and Study, imported on first use


def __getattr__(name: str) -> Any:
    """Import ``Study`` on first use: it brings in optuna."""
    if name == "Study":
        return import_module("mtlsk.study").Study
    raise AttributeError(f"module 'mtlsk' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what there is, the lazy ``Study`` too."""
    return sorted([*globals(), "Study"])
