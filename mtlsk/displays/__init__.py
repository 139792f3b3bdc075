"""Pictures of a fitted net, in the style of scikit-learn's Displays.

.. code:: python

    ConflictDisplay.from_estimator(pipeline, X_test, y_test)
    plot_losses(pipeline).figure_.savefig("losses.png")
"""

from mtlsk.displays.conflict import ConflictDisplay, plot_conflict
from mtlsk.displays.feasible import FeasibleDisplay, plot_feasible
from mtlsk.displays.losses import LossesDisplay, plot_losses
from mtlsk.displays.trajectory import TrajectoryDisplay, plot_trajectory
from mtlsk.displays.weights import WeightsDisplay, plot_weights

__all__ = [
    "ConflictDisplay",
    "FeasibleDisplay",
    "LossesDisplay",
    "TrajectoryDisplay",
    "WeightsDisplay",
    "plot_conflict",
    "plot_feasible",
    "plot_losses",
    "plot_trajectory",
    "plot_weights",
]
