"""WeightsDisplay: what each task's gradient counted, over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from mtlsk.displays.lines import FEW, entries_of, legend, picked, task_lines, typical
from mtlsk.displays.series import checked, epochs_of, series, trained
from mtlsk.drawing import axes


class WeightsDisplay:
    """The mean weight of each task's gradient in the updates of an epoch, and the line 1/K.

    It is best made by :meth:`from_estimator`. Weights need not sum to 1 nor be positive. Colours
    are as in ``LossesDisplay``, of many tasks those with the largest and smallest mean weight.

    Parameters
    ----------
    epochs : E ints
    weights : array (E, K)
    task_names : K strings

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of K Line2D
    equal_ : Line2D at 1/K
    legend_ : matplotlib Legend
    """

    def __init__(self, epochs: Any, weights: Any, *, task_names: Sequence[str]) -> None:
        self.epochs = np.asarray(epochs)
        self.task_names = list(task_names)
        self.weights = checked(weights, (len(self.epochs), len(self.task_names)), "weights")

    def plot(self, ax: Any = None, *, tasks: Sequence[Any] | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or None
            None makes a figure.
        tasks : names or indices of at most seven tasks, or None
            Which have a colour.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            For a task that is not there.
        """
        k = len(self.task_names)
        there = self.weights[np.isfinite(self.weights).all(axis=1)]
        colour = picked(tasks, self.task_names, there.mean(axis=0))
        self.ax_ = panel = axes(ax, (8.0, 4.8))[0, 0]
        self.figure_ = panel.figure
        self.lines_ = task_lines(panel, self.epochs, self.weights, colour)
        entries = entries_of(self.lines_, colour, self.task_names)
        if k > FEW:
            entries.append((typical(panel, self.epochs, self.weights), "median of all tasks"))
        self.equal_ = panel.axhline(1 / k, color="black", linestyle="--", linewidth=1, zorder=2)
        entries.append((self.equal_, f"1/K = {1 / k:.3g}"))
        if there.size and there.min() < 0:
            panel.axhline(0, color="black", linewidth=0.6, zorder=0)
        panel.set_ylabel("weight of the task's gradient")
        self.legend_ = legend(panel, entries)
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        tasks: Sequence[Any] | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the weights of a fitted net, alone or in a Pipeline, a search or the like.

        Parameters
        ----------
        estimator : fitted estimator
        X, y : ignored, here as in the other displays
        tasks, ax : as for :meth:`plot`
        """
        net = trained(estimator)
        weights = series(net, "task_weights")
        if weights is None:
            raise ValueError("the history holds no task weights: its epochs had no batch")
        return cls(epochs_of(net), weights, task_names=net.task_names_).plot(ax, tasks=tasks)


def plot_weights(estimator: Any, X: Any = None, y: Any = None, **options: Any) -> WeightsDisplay:
    """Draw the task weights over the epochs: :meth:`WeightsDisplay.from_estimator`."""
    return WeightsDisplay.from_estimator(estimator, X, y, **options)
