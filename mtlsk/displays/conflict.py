"""ConflictDisplay: the cosines between the task gradients, on some rows or over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Self

import numpy as np

from mtlsk.component import shown
from mtlsk.displays.heat import colour_bar, heat_map, rounded, span_of
from mtlsk.displays.lines import legend, task_lines
from mtlsk.displays.series import Array, checked, epochs_of, series, trained
from mtlsk.drawing import axes, short
from mtlsk.estimators.printlog import MeanCosines
from mtlsk.scorers import task_gradients

KINDS = ("auto", "matrix", "pairs")
KEYS = ("cosines", "logged_cosines")
FEW_PAIRS = 3


class ConflictDisplay:
    """The cosine between every two task gradients: below 0 the tasks conflict.

    It is best made by :meth:`from_estimator`. One matrix is an annotated heat map; several are one
    heat map an epoch (``kind="matrix"``) or a map of pairs by epochs (``kind="pairs"``), sorted
    by mean cosine, of at most ``n_pairs`` pairs: those in most conflict. Three pairs or fewer are
    lines. Colours run from dark (conflict) to light, the same in grey; cells below 0 bear their
    number or a bar, and cells without a value (a pair of tasks never in one batch) are hatched.

    Parameters
    ----------
    cosines : array (K, K), or (E, K, K) over epochs
    epochs : E ints, or None for one matrix
    task_names : K strings

    Attributes
    ----------
    ax_ : matplotlib Axes, the first
    axes_ : object array of all Axes
    figure_ : matplotlib Figure
    images_ : list of AxesImage, one a heat map
    texts_ : list of Text, the numbers in the cells of the first matrix
    pairs_ : list of (i, j), the pairs drawn from top to bottom, None for matrices
    lines_ : list of Line2D, one a pair, where lines are drawn
    """

    def __init__(self, cosines: Any, epochs: Any = None, *, task_names: Sequence[str]) -> None:
        self.task_names = list(task_names)
        k = len(self.task_names)
        self.epochs = None if epochs is None else np.asarray(epochs)
        shape = (k, k) if self.epochs is None else (len(self.epochs), k, k)
        self.cosines = checked(cosines, shape, "cosines")

    def plot(
        self,
        ax: Any = None,
        *,
        kind: str = "auto",
        n_pairs: int = 30,
        annotate: bool | str = "auto",
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, a list of as many as matrices are drawn, or None
            None makes a figure.
        kind : "auto", "matrix" or "pairs"
            "auto" is "matrix" for one matrix and "pairs" for several.
        n_pairs : int
            At most so many pairs, those of the smallest mean cosine.
        annotate : "auto", True or False
            Write numbers into the cells of matrices; "auto" where they can be read.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            For a wrong parameter, or pairs of a single task.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is not allowed; use one of {', '.join(KINDS)}")
        if n_pairs < 1:
            raise ValueError(f"n_pairs={n_pairs!r} is not allowed; use an integer >= 1")
        self.images_: list[Any] = []
        self.texts_: list[Any] = []
        self.lines_: list[Any] = []
        self.pairs_: list[tuple[int, int]] | None = None
        if kind == "matrix" or (kind == "auto" and self.epochs is None):
            self._matrices(ax, annotate)
        else:
            self._over_epochs(ax, n_pairs)
        self.ax_ = self.axes_.flat[0]
        self.figure_ = self.ax_.figure
        return self

    def _matrices(self, ax: Any, annotate: bool | str) -> None:
        stack = self.cosines.reshape(-1, *self.cosines.shape[-2:])
        n, k = stack.shape[:2]
        small = {"fontsize": 9.0 if n == 1 and k <= 15 else 6.5 if k <= 15 or n == 1 else 5.0}
        rows = 1 if ax is not None else -(-n // (4 if k <= 15 else 3))
        columns = -(-n // rows)
        many, few = (0.5, 0.12) if n == 1 else (0.2, 0.08)
        side = 1.2 + many * min(k, 12) + few * max(k - 12, 0)
        size = (columns * side + 1.6, max(3.6, rows * side + 0.4))
        self.axes_ = axes(ax, size, rows, columns)
        off = stack[:, ~np.eye(k, dtype=bool)]
        span = span_of(off)
        numbers = annotate is True or (annotate == "auto" and k <= (15 if n == 1 else 5))
        names = [short(name) for name in self.task_names]
        for e, panel in enumerate(self.axes_.flat):
            if e >= n:
                panel.set_axis_off()
                continue
            image, texts = heat_map(panel, stack[e], span, numbers, square=True)
            self.images_.append(image)
            self.texts_ = self.texts_ or texts
            panel.set_xticks(range(k), names, rotation=90, **small)
            panel.set_yticks(range(k), names if e % columns == 0 else [""] * k, **small)
            if self.epochs is not None:
                panel.set_title(f"epoch {self.epochs[e]}", fontsize=10)
        colour_bar(self.images_[0], list(self.axes_.flat), bars=not numbers)

    def _over_epochs(self, ax: Any, n_pairs: int) -> None:
        k = len(self.task_names)
        if k < 2:
            raise ValueError("there is one task, and conflict is between two; use kind='matrix'")
        stack = self.cosines.reshape(-1, k, k)
        epochs = np.zeros(1, dtype=int) if self.epochs is None else self.epochs
        every = list(combinations(range(k), 2))
        values = np.array([stack[:, i, j] for i, j in every])  # (pairs, E)
        mean = _mean(values)
        order = np.argsort(mean, kind="stable")[:n_pairs]  # NaN comes last
        self.pairs_ = [every[p] for p in order]
        names = [short(name, 20) for name in self.task_names]
        labels = [f"{names[i]}, {names[j]}" for i, j in self.pairs_]
        if len(every) <= FEW_PAIRS:
            self.axes_ = axes(ax, (8.0, 4.2))
            panel = self.axes_[0, 0]
            self.lines_ = task_lines(panel, epochs, values[order].T, range(len(order)))
            panel.axhline(0, color="black", linewidth=0.8)
            panel.set_ylabel("cosine of the task gradients\n(below 0: conflict)")
            legend(panel, list(zip(self.lines_, labels, strict=True)))
            return
        self.axes_ = axes(ax, (9.0, max(3.6, 1.4 + 0.2 * len(order))))
        panel = self.axes_[0, 0]
        image, _ = heat_map(panel, values[order], span_of(values[order]), False, square=False)
        self.images_ = [image]
        panel.set_yticks(
            range(len(order)),
            [f"{label}   {rounded(mean[p])}" for label, p in zip(labels, order, strict=True)],
            fontsize=8,
        )
        ticks = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 11)).astype(int))
        panel.set_xticks(ticks, [str(epochs[t]) for t in ticks])
        panel.set_xlabel("epoch")
        some = f"the {len(order)} of {len(every)} pairs in most conflict"
        title = "all pairs" if len(order) == len(every) else some
        panel.set_title(f"{title}, with their mean cosine", fontsize=10, loc="left")
        colour_bar(image, [panel], bars=True)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        epochs: Sequence[int] | None = None,
        key: str | None = None,
        kind: str = "auto",
        n_pairs: int = 30,
        annotate: bool | str = "auto",
        ax: Any = None,
    ) -> Self:
        """Draw the conflict of a fitted net on X and y, or without them over its epochs.

        Parameters
        ----------
        estimator : fitted estimator, the net alone or in a Pipeline, a search or the like
        X, y : rows to look at with the fitted net, or None for what the history holds
        epochs : list of int, or None
            Epochs to draw a matrix of each; None draws the pairs over all epochs.
        key : str or None
            Column of the history; None takes "cosines", the means over the steps, else
            "logged_cosines", what a ``ConflictLog`` recorded.
        kind, n_pairs, annotate, ax : as for :meth:`plot`

        Raises
        ------
        ValueError
            Where the history holds no cosines, or not those of an epoch asked for.
        """
        options: dict[str, Any] = {"n_pairs": n_pairs, "annotate": annotate}
        if X is not None:
            if epochs is not None or key is not None:
                raise ValueError("epochs= and key= look at the history; leave out X and y for them")
            gramian, _ = task_gradients(estimator, X, y)
            mean = MeanCosines(len(gramian))
            mean.add(gramian, range(len(gramian)))
            names = trained(estimator).task_names_
            return cls(mean.value(), task_names=names).plot(ax, kind=kind, **options)
        net = trained(estimator)
        stack, which = _recorded(net, key)
        if epochs is not None:
            wanted = [epochs] if isinstance(epochs, int | np.integer) else list(epochs)
            lost = [e for e in wanted if e not in which]
            if lost or not wanted:
                raise ValueError(
                    f"epochs={shown(epochs)} is not allowed: cosines are there for the epochs "
                    f"{shown(which.tolist())}"
                )
            rows = [which.tolist().index(e) for e in wanted]
            stack, which = stack[rows], which[rows]
            kind = "matrix" if kind == "auto" else kind
        return cls(stack, which, task_names=net.task_names_).plot(ax, kind=kind, **options)


def _recorded(net: Any, key: str | None) -> tuple[Array, Any]:
    """Return the cosines (E, K, K) of the epochs that have some, and the epochs' numbers."""
    numbers = epochs_of(net)
    for name in KEYS if key is None else (key,):
        stack = series(net, name)
        if stack is None:
            continue
        k = len(net.task_names_)
        if stack.shape[1:] != (k, k):
            raise ValueError(f"history_[:, {name!r}] holds no matrices ({k}, {k}); name another")
        there = np.array([name in row for row in net.history_])
        return stack[there], numbers[there]
    what = "no cosines" if key is None else f"no {key!r}"
    raise ValueError(
        f"the history holds {what}: {type(net.aggregator_).__name__} took its steps without a "
        "Gramian; give X and y, or fit with callbacks=[ConflictLog()]"
    )


def _mean(values: Array) -> Array:
    """Return the mean of each row's finite values, NaN where there is none."""
    n = np.isfinite(values).sum(axis=1)
    return np.where(n > 0, np.nansum(values, axis=1) / np.maximum(n, 1), np.nan)


def plot_conflict(estimator: Any, X: Any = None, y: Any = None, **options: Any) -> ConflictDisplay:
    """Draw the cosines of the task gradients: :meth:`ConflictDisplay.from_estimator`."""
    return ConflictDisplay.from_estimator(estimator, X, y, **options)
