"""Multi-task learning as a parameter: aggregators, controllers, certificates for scikit-learn."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtlsk.aggregators import Aggregator
    from mtlsk.callbacks import ConflictLog
    from mtlsk.certification import certify
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
    from mtlsk.relu import (
        ReLUInterpolator,
        convex_interpolant,
        multitask_path_norm,
        neuron_sharing,
    )
    from mtlsk.scorers import SCORERS
    from mtlsk.study import Study as Study
    from mtlsk.tablemodel import TableModel

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
    "ReLUInterpolator",
    "ScalarizationFront",
    "StepRecord",
    "TableModel",
    "TrajectoryDisplay",
    "WeightsDisplay",
    "certify",
    "convex_interpolant",
    "multitask_path_norm",
    "neuron_sharing",
    "plot_conflict",
    "plot_losses",
    "plot_trajectory",
    "plot_weights",
]  # and Study, which needs the extra of that name

_HOME = {
    "aggregators": ["Aggregator"],
    "callbacks": ["ConflictLog"],
    "certification": ["certify"],
    "controllers": ["Controller"],
    "descent": ["Descent", "DivergenceError"],
    "displays": [n for n in __all__ if n.endswith("Display") or n.startswith("plot_")],
    "engines": ["Engine"],
    "estimators": [
        "SKOPS_TRUSTED",
        "MultiTaskClassifier",
        "MultiTaskNet",
        "MultiTaskRegressor",
        "ScalarizationFront",
    ],
    "record": ["StepRecord"],
    "relu": [
        "ReLUInterpolator",
        "convex_interpolant",
        "multitask_path_norm",
        "neuron_sharing",
    ],
    "scorers": ["SCORERS"],
    "study": ["Study"],
    "tablemodel": ["TableModel"],
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name or module on first use: torch takes seconds, ``mtlsk --help`` needs none."""
    if name in _WHERE:
        globals()[name] = found = getattr(import_module(f"mtlsk.{_WHERE[name]}"), name)
        return found
    try:
        if not name.startswith("_"):
            return import_module(f"mtlsk.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"mtlsk.{name}":
            raise
    raise AttributeError(f"module 'mtlsk' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what there is."""
    return sorted([*globals(), *_WHERE])
