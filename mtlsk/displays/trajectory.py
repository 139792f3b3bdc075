"""TrajectoryDisplay: the way of two losses through a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from mtlsk.component import shown
from mtlsk.displays.series import Array, checked, chosen, series, trained
from mtlsk.drawing import COLOURS, MARKERS, axes, log_axis, plain, short
from mtlsk.scorers import task_gradients


class TrajectoryDisplay:
    """Two tasks' losses against each other, a point an epoch: how they were traded.

    It is best made by :meth:`from_estimator`. The first epoch is a ring, the last a large filled
    marker. Down and left is better for both.

    Parameters
    ----------
    paths : dict of label -> array (E, 2)
        Training losses of the two tasks.
    valid : dict of label -> array (E, 2), or None
        Validation losses of some of them: dashed.
    given : dict of label -> array (2,), or None
        Losses of the fitted nets on other rows: stars.
    task_names : 2 strings

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_, valid_lines_ : dict of label -> Line2D
    legend_ : matplotlib Legend
    """

    def __init__(
        self,
        paths: Mapping[str, Any],
        valid: Mapping[str, Any] | None = None,
        given: Mapping[str, Any] | None = None,
        *,
        task_names: Sequence[str],
    ) -> None:
        self.paths = {name: checked(path, (None, 2), name) for name, path in paths.items()}
        self.valid = {name: checked(p, (None, 2), name) for name, p in (valid or {}).items()}
        self.given = {name: checked(p, (2,), name) for name, p in (given or {}).items()}
        self.task_names = list(task_names)
        if len(self.paths) > len(COLOURS):
            raise ValueError(
                f"{len(self.paths)} trajectories are too many to tell apart; at most {len(COLOURS)}"
            )

    def plot(self, ax: Any = None, *, log: bool | str = "auto") -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or None
            None makes a figure.
        log : "auto", True or False
            Logarithmic losses; "auto" where they span a factor of ten, axis by axis.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            For a wrong parameter.
        """
        self.ax_ = panel = axes(ax, (7.2, 5.0))[0, 0]
        self.figure_ = panel.figure
        self.lines_, self.valid_lines_ = {}, {}
        for i, (name, path) in enumerate(self.paths.items()):
            self.lines_[name] = _path(panel, path, i, "-")
            if name in self.valid:
                self.valid_lines_[name] = _path(panel, self.valid[name], i, "--")
            if name in self.given:
                look: dict[str, Any] = {"c": COLOURS[i], "edgecolors": "black", "zorder": 5}
                panel.scatter(*self.given[name], s=140, marker="*", **look)
        every = [*self.paths.values(), *self.valid.values(), *self.given.values()]
        points = np.vstack([part.reshape(-1, 2) for part in every])
        for j, which in enumerate("xy"):
            log_axis(panel, which, points[:, j], log)
            panel.set(**{f"{which}label": f"loss of {plain(self.task_names[j])}"})
        panel.grid(alpha=0.25)
        self._legend()
        return self

    def _legend(self) -> None:
        look: dict[str, Any] = {"color": "0.35", "markersize": 8}
        entries = [(line, short(name)) for name, line in self.lines_.items()]
        entries = entries if len(entries) > 1 else []
        draw = self.ax_.plot
        if self.valid:
            entries.append((draw([], [], linestyle="-", color="0.35")[0], "training"))
            entries.append((draw([], [], linestyle="--", color="0.35")[0], "validation"))
        ring = {"marker": "o", "linestyle": "none", "markerfacecolor": "white"}
        entries.append((draw([], [], **look, **ring)[0], "first epoch"))
        entries.append((draw([], [], **look, marker="o", linestyle="none")[0], "last epoch"))
        if self.given:
            star = {"marker": "*", "linestyle": "none", "markerfacecolor": "white"}
            entries.append((draw([], [], **look, **star)[0], "on the rows given"))
        handles = [handle for handle, _ in entries]
        self.legend_ = self.ax_.legend(
            handles,
            [str(i) for i in range(len(entries))],
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            frameon=False,
            fontsize=9,
        )
        for text, (_, name) in zip(self.legend_.get_texts(), entries, strict=True):
            text.set_text(name)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        tasks: Sequence[Any] = (0, 1),
        valid: bool = True,
        log: bool | str = "auto",
        ax: Any = None,
    ) -> Self:
        """Draw the trajectory of a fitted estimator, or of several by name.

        Parameters
        ----------
        estimator : fitted estimator, or dict of label -> fitted estimator
        X, y : rows to mark the present losses on, or None
        tasks : two names or indices of tasks
        valid : bool
            Draw validation losses too, where there are some.
        log, ax : as for :meth:`plot`

        Raises
        ------
        ValueError
            For a task that is not there, or names of tasks that differ.
        """
        many = estimator if isinstance(estimator, Mapping) else {"training": estimator}
        if not many:
            raise ValueError("the dict of estimators is empty; give one estimator at least")
        paths, held, given = {}, {}, {}
        names: list[str] = []
        for label, one in many.items():
            net = trained(one)
            pair = chosen(tasks, net.task_names_)
            if len(pair) != 2:
                raise ValueError(f"tasks={shown(tasks)} is not allowed; name two tasks")
            own = [net.task_names_[k] for k in pair]
            names = names or own
            if own != names:
                raise ValueError(f"{label!r} has the tasks {own} where others have {names}")
            train = series(net, "train_losses")
            if train is None:
                raise ValueError("the history holds no task losses: its epochs had no batch")
            paths[label] = train[:, pair]
            of_valid = series(net, "valid_losses")
            if valid and of_valid is not None:
                held[label] = of_valid[:, pair]
            if X is not None:
                given[label] = task_gradients(one, X, y)[1].numpy()[pair]
        return cls(paths, held, given, task_names=names).plot(ax, log=log)


def _path(panel: Any, path: Array, i: int, style: str) -> Any:
    """Draw one trajectory, its start and its end."""
    look: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i]}
    line = panel.plot(*path.T, linestyle=style, markersize=3, linewidth=1.3, zorder=3, **look)[0]
    there = path[np.isfinite(path).all(axis=1)]
    if len(there):
        ring = {"markerfacecolor": "white", "markeredgewidth": 1.5, "zorder": 4}
        panel.plot(*there[:1].T, markersize=9, **look, **ring)
        panel.plot(*there[-1:].T, markersize=9, markeredgecolor="black", zorder=4, **look)
    return line


def plot_trajectory(
    estimator: Any, X: Any = None, y: Any = None, **options: Any
) -> TrajectoryDisplay:
    """Draw two tasks' losses against each other: :meth:`TrajectoryDisplay.from_estimator`."""
    return TrajectoryDisplay.from_estimator(estimator, X, y, **options)
