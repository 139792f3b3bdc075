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
        FeasibleDisplay,
        LossesDisplay,
        TrajectoryDisplay,
        WeightsDisplay,
        plot_conflict,
        plot_feasible,
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
        RandomizedFront,
        ReducedRankRegressor,
        ScalarizationFront,
    )
    from mtlsk.linear_mtl import exploration_test, reachability_gap
    from mtlsk.record import StepRecord
    from mtlsk.regularizers import multitask_path_norm
    from mtlsk.relu import (
        ReLUInterpolator,
        convex_interpolant,
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
    "FeasibleDisplay",
    "LossesDisplay",
    "MultiTaskClassifier",
    "MultiTaskNet",
    "MultiTaskRegressor",
    "RandomizedFront",
    "ReLUInterpolator",
    "ReducedRankRegressor",
    "ScalarizationFront",
    "StepRecord",
    "TableModel",
    "TrajectoryDisplay",
    "WeightsDisplay",
    "certify",
    "convex_interpolant",
    "exploration_test",
    "multitask_path_norm",
    "neuron_sharing",
    "plot_conflict",
    "plot_feasible",
    "plot_losses",
    "plot_trajectory",
    "plot_weights",
    "reachability_gap",
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
        "RandomizedFront",
        "ReducedRankRegressor",
        "ScalarizationFront",
    ],
    "linear_mtl": ["exploration_test", "reachability_gap"],
    "record": ["StepRecord"],
    "regularizers": ["multitask_path_norm"],
    "relu": [
        "ReLUInterpolator",
        "convex_interpolant",
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
