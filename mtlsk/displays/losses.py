"""LossesDisplay: the loss of each task over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from mtlsk.displays.lines import FEW, entries_of, legend, picked, task_lines, typical
from mtlsk.displays.series import checked, epochs_of, series, trained
from mtlsk.drawing import axes, log_axis
from mtlsk.scorers import task_gradients


class LossesDisplay:
    """The training loss of each task over the epochs, and the validation loss where there is one.

    It is best made by :meth:`from_estimator`. Losses are in the units of y as the net sees it. Up
    to seven tasks have colours and markers; of more, six have: the three with the largest and the
    three with the smallest last loss, or those asked for. The others are grey, the dotted line is
    the median of all tasks.

    Parameters
    ----------
    epochs : E ints
    train : array (E, K)
        NaN where a task has no loss.
    valid : array (E, K), or None
    given : array (K,), or None
        Losses of the fitted net on other rows: stars at the last epoch, of tasks with a colour.
    task_names : K strings

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of K Line2D, the training losses
    valid_lines_ : list of K Line2D, or None
    given_ : PathCollection, or None
    legend_ : matplotlib Legend
    """

    def __init__(
        self,
        epochs: Any,
        train: Any,
        valid: Any = None,
        given: Any = None,
        *,
        task_names: Sequence[str],
    ) -> None:
        self.epochs = np.asarray(epochs)
        self.task_names = list(task_names)
        shape = (len(self.epochs), len(self.task_names))
        self.train = checked(train, shape, "train")
        self.valid = None if valid is None else checked(valid, shape, "valid")
        self.given = None if given is None else checked(given, shape[1:], "given")

    def plot(
        self, ax: Any = None, *, tasks: Sequence[Any] | None = None, log: bool | str = "auto"
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or None
            None makes a figure.
        tasks : names or indices of at most seven tasks, or None
            Which have a colour.
        log : "auto", True or False
            Logarithmic losses; "auto" where they span a factor of ten.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            For a task that is not there, or another wrong parameter.
        """
        last = self.train[-1] if self.valid is None else self.valid[-1]
        colour = picked(tasks, self.task_names, last)
        self.ax_ = panel = axes(ax, (8.0, 4.8))[0, 0]
        self.figure_ = panel.figure
        self.lines_ = task_lines(panel, self.epochs, self.train, colour)
        self.valid_lines_ = self.given_ = None
        entries = entries_of(self.lines_, colour, self.task_names)
        if len(self.task_names) > FEW:
            entries.append((typical(panel, self.epochs, self.train), "median of all tasks"))
        look: dict[str, Any] = {"color": "0.35", "linewidth": 1.5}
        if self.valid is not None:
            self.valid_lines_ = task_lines(panel, self.epochs, self.valid, colour, second=True)
            for name, style in (("training", "-"), ("validation", "--")):
                entries.append((panel.plot([], [], linestyle=style, **look)[0], name))
        if self.given is not None:
            colours = [self.lines_[k].get_color() for k in colour]
            x = np.full(len(colour), self.epochs[-1])
            self.given_ = panel.scatter(
                x, self.given[colour], s=90, c=colours, marker="*", edgecolors="black", zorder=4
            )
            star = panel.plot([], [], "*", color="white", markeredgecolor="black", markersize=10)
            entries.append((star[0], "on the rows given"))
        parts = [part for part in (self.train, self.valid, self.given) if part is not None]
        log_axis(panel, "y", np.concatenate([part.ravel() for part in parts]), log)
        panel.set_ylabel("loss of the task")
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
        log: bool | str = "auto",
        ax: Any = None,
    ) -> Self:
        """Draw the losses of a fitted net, alone or in a Pipeline, a search or the like.

        Parameters
        ----------
        estimator : fitted estimator
        X, y : rows to mark the present loss of each task on, or None
        tasks, log, ax : as for :meth:`plot`
        """
        net = trained(estimator)
        train = series(net, "train_losses")
        if train is None:
            raise ValueError("the history holds no task losses: its epochs had no batch")
        given = None if X is None else task_gradients(estimator, X, y)[1].numpy()
        valid, names = series(net, "valid_losses"), net.task_names_
        display = cls(epochs_of(net), train, valid, given, task_names=names)
        return display.plot(ax, tasks=tasks, log=log)


def plot_losses(estimator: Any, X: Any = None, y: Any = None, **options: Any) -> LossesDisplay:
    """Draw the task losses over the epochs: :meth:`LossesDisplay.from_estimator`."""
    return LossesDisplay.from_estimator(estimator, X, y, **options)
