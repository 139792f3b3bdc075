"""FeasibleDisplay: the errors that linear models of one rank can have, and which weights reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from mtlsk.displays.series import Array, checked
from mtlsk.drawing import COLOURS, axes, short
from mtlsk.linear_mtl import (
    REACHED,
    balanced_solution,
    fit_linear,
    reachability,
    scalarization_optimum,
)
from mtlsk.linear_mtl.gram import as_gram, check_rank
from mtlsk.simplex import spread_on_simplex

FINE = {2: (1, 721), 3: (81, 161)}
"""Points of the sphere that are drawn, for each number of tasks."""


class FeasibleDisplay:
    """The mean squared errors of all rank-(K - 1) or rank-1 linear models of two or three tasks.

    With q = 1 v = t^2, with q = K - 1 v_i = G_ii - t_i^2, t on an ellipsoid: 2^(K - 1) surfaces, a
    colour for each pattern of signs of t; for two tasks curves. Dark dots are scalarization optima
    of weights all over the simplex; the star is the balanced model, with the smallest largest
    error, and the diamond the mixture above it where no weights reach it. Best made by
    :meth:`from_data`.

    Parameters
    ----------
    surface : array (a, b, K)
        Errors on a grid over the sphere.
    signs : array (a, b) of int
        Number of the pattern of signs.
    reached : array (m, K)
        Errors of scalarization optima.
    balanced, mixture : arrays (K,)
        Errors of the balanced model, and of the mixture; they are equal where it is reached.
    task_names : K strings

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    surfaces_ : list of the surfaces (3 tasks) or lines (2 tasks)
    reached_, balanced_ : the artists of the dots and the star
    mixture_ : that of the diamond, or None where the balanced model is reached
    legend_ : matplotlib Legend
    """

    def __init__(
        self,
        surface: Any,
        signs: Any,
        reached: Any,
        balanced: Any,
        mixture: Any,
        *,
        task_names: Sequence[str],
    ) -> None:
        self.task_names = list(task_names)
        k = len(self.task_names)
        if k not in FINE:
            raise ValueError(f"{k} tasks cannot be drawn; choose 2 or 3 of them")
        self.surface = checked(surface, (None, None, k), "surface")
        self.signs = np.asarray(signs)
        self.reached = checked(reached, (None, k), "reached")
        self.balanced = checked(balanced, (k,), "balanced")
        self.mixture = checked(mixture, (k,), "mixture")

    def plot(self, ax: Any = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes or None
            Of projection "3d" for three tasks. None makes a figure.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            For three tasks on flat axes.
        """
        flat = len(self.task_names) == 2
        if ax is None and not flat:
            flat_axes = axes(None, (8.5, 6.4))[0, 0]
            figure = flat_axes.figure
            flat_axes.remove()
            ax = figure.add_subplot(projection="3d")
        self.ax_ = panel = axes(ax, (6.8, 5.0))[0, 0]
        self.figure_ = panel.figure
        if not flat and panel.name != "3d":
            raise ValueError("ax is flat and three tasks are drawn; give axes of projection='3d'")
        self.surfaces_ = self._curves(panel) if flat else self._sheets(panel)
        dots: dict[str, Any] = {"linestyle": "", "zorder": 5}
        (self.reached_,) = panel.plot(
            *self.reached.T, marker=".", color="black", markersize=3, **dots
        )
        self.reached_.set_label("reached by task weights")
        (self.balanced_,) = panel.plot(
            *self.balanced[:, None], marker="*", color="#CC0000", markersize=16, **dots
        )
        missed = not np.allclose(self.balanced, self.mixture, rtol=1e-4, atol=1e-9)
        self.balanced_.set_label("balanced model" + ", reached by no weights" * missed)
        self.mixture_ = None
        if missed:
            (self.mixture_,) = panel.plot(
                *self.mixture[:, None], marker="D", color="#CC0000", markersize=8, **dots
            )
            self.mixture_.set(markerfacecolor="white", label="mixture: better on every task")
        for axis, name in zip("xyz", self.task_names, strict=False):
            getattr(panel, f"set_{axis}label")(f"mse of {short(name)}")
        if flat:
            panel.grid(alpha=0.25)
        else:
            panel.view_init(elev=22, azim=-125)  # the corner of small errors to the front
            panel.set_box_aspect(None, zoom=0.85)
        self.legend_ = panel.legend(loc="upper right", fontsize=8)
        return self

    def _curves(self, panel: Any) -> list[Any]:
        found = []
        for n, sign in enumerate(np.unique(self.signs)):
            part = np.where((self.signs[0] == sign)[:, None], self.surface[0], np.nan)
            look = {"color": COLOURS[n], "linewidth": 2, "linestyle": ["-", "--"][n % 2]}
            found += panel.plot(*part.T, label=f"models, signs {_pattern(int(sign), 2)}", **look)
        return found

    def _sheets(self, panel: Any) -> list[Any]:
        from mpl_toolkits.mplot3d.art3d import Poly3DCollection

        found = []
        for n, sign in enumerate(np.unique(self.signs)):
            # Quadrilaterals of one shape: where the polygons of a collection differ in length, as
            # plot_surface makes them around holes, matplotlib computes with unset memory.
            whole = _corners(self.signs == sign).all(axis=-1)
            faces = np.moveaxis(_corners(np.moveaxis(self.surface, -1, 0)), 0, -1)[whole]
            sheet = Poly3DCollection(faces, color=COLOURS[n], alpha=0.35, linewidth=0)
            sheet.set_label(f"models, signs {_pattern(int(sign), 3)}")
            panel.add_collection3d(sheet)
            found.append(sheet)
        return found

    @classmethod
    def from_data(
        cls, X: Any, Y: Any, rank: int = 1, *, fit_intercept: bool = True, ax: Any = None
    ) -> Self:
        """Draw the errors that linear models of rank 1 or K - 1 can have on data.

        Parameters
        ----------
        X : (n, d)
        Y : (n, K)
            Two or three tasks; a DataFrame's columns name them.
        rank : int
            1 or K - 1.
        fit_intercept : bool
            Centre X and Y.
        ax : as for :meth:`plot`

        Raises
        ------
        ValueError
            For other numbers of tasks or ranks, NaN, and tasks of which one is a linear
            combination of the others.
        """
        fit = fit_linear(X, Y, fit_intercept=fit_intercept)
        k = len(fit.G)
        if k not in FINE:
            raise ValueError(f"Y has {k} tasks; the picture takes 2 or 3: choose some columns")
        q = check_rank(rank, k)
        gram = as_gram(fit.G)
        if q == k or gram.rank < k:
            raise ValueError(
                f"rank={q} of {k} tasks, whose fits have rank {gram.rank}: models of full rank are "
                "one point; give a smaller rank and tasks that are linearly independent"
            )
        t = _sphere(k) @ gram.factor.T * np.sqrt(gram.scale)
        v = t**2 if q == 1 else fit.G.diagonal() - t**2
        weights = spread_on_simplex(2000 if k == 3 else 200, k, np.random.RandomState(0))
        # uniform on the simplex of unit-diagonal weights, so that no task's units matter
        optima = [scalarization_optimum(w / gram.scale, fit.G, q).v for w in weights]
        balanced = balanced_solution(fit.G, q, fit.squares)
        reach = reachability(balanced.v, fit.G, q)
        mixed = reach.probabilities @ reach.v if reach.gap < -REACHED else balanced.v
        signs = ((t > 0) != (t[..., :1] > 0)) @ (2 ** np.arange(k))
        names = getattr(Y, "columns", [f"task {i + 1}" for i in range(k)])
        return cls(
            fit.mse(v),
            signs,
            fit.mse(np.array(optima)),
            fit.mse(balanced.v),
            fit.mse(mixed),
            task_names=[str(name) for name in names],
        ).plot(ax)


def _sphere(k: int) -> Array:
    """Return unit vectors (a, b, k) on half a sphere, which is all up to the sign."""
    rows, columns = FINE[k]
    turn = np.linspace(0, (2 if k == 3 else 1) * np.pi, columns)
    if k == 2:
        return np.stack([np.cos(turn), np.sin(turn)], axis=-1)[None]
    down, around = np.meshgrid(np.linspace(0, np.pi / 2, rows), turn, indexing="ij")
    return np.stack(
        [np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down)], axis=-1
    )


def _corners(grid: Array) -> Array:
    """Return the four corners (..., a - 1, b - 1, 4) of each cell of a grid (..., a, b)."""
    above, below = grid[..., :-1, :], grid[..., 1:, :]
    ring = [above[..., :-1], above[..., 1:], below[..., 1:], below[..., :-1]]
    return np.stack(ring, axis=-1)


def _pattern(sign: int, k: int) -> str:
    """Return the signs of t of a pattern's number, the first one positive: "+ - +"."""
    return " ".join("-" if sign >> i & 1 else "+" for i in range(k))


def plot_feasible(X: Any, Y: Any, rank: int = 1, **options: Any) -> FeasibleDisplay:
    """Draw what errors linear models of one rank can have: :meth:`FeasibleDisplay.from_data`."""
    return FeasibleDisplay.from_data(X, Y, rank, **options)
