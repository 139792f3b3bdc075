"""What a fitted net remembers of its epochs, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlsk.component import closest, shown
from mtlsk.estimators import MultiTaskNet
from mtlsk.scorers import unwrap

Array = NDArray[np.float64]


def trained(estimator: Any) -> MultiTaskNet:
    """Return the net inside an estimator.

    Raises
    ------
    NotFittedError, TypeError
        Where there is none, or it is not fitted.
    ValueError
        Where it has been initialised but never trained.
    """
    net, _, _ = unwrap(estimator)
    if len(net.history_) == 0:
        raise ValueError("the history holds no epoch yet; call fit(X, y) first")
    return net


def epochs_of(net: MultiTaskNet) -> NDArray[np.int64]:
    """Return the numbers of the epochs (E,)."""
    return np.array([row["epoch"] for row in net.history_], dtype=np.int64)


def series(net: MultiTaskNet, key: str) -> Array | None:
    """Return a column of the history (E, ...), NaN in epochs without it, or None without any."""
    rows = [row.get(key) for row in net.history_]
    there = [row for row in rows if row is not None]
    if not there:
        return None
    blank = np.full(np.shape(there[0]), np.nan)
    return np.array([blank if row is None else row for row in rows], dtype=np.float64)


def chosen(tasks: Sequence[Any], names: Sequence[str]) -> list[int]:
    """Return the indices of tasks given by name or index.

    Raises
    ------
    ValueError
        For one that is not there, or text in place of a list.
    """
    if isinstance(tasks, str | bytes) or not hasattr(tasks, "__iter__"):
        raise ValueError(f"tasks={shown(tasks)} is not allowed; use a list of names or indices")
    found = []
    for task in tasks:
        whole = isinstance(task, int | np.integer) and not isinstance(task, bool)
        if whole and -len(names) <= task < len(names):
            found.append(int(task) % len(names))
        elif isinstance(task, str) and task in names:
            found.append(list(names).index(task))
        else:
            raise ValueError(
                f"there is no task {task!r}{closest(str(task), names)}; the tasks are "
                f"{shown(list(names))}"
            )
    if len(set(found)) < len(found) or not found:
        raise ValueError(f"tasks={shown(tasks)} is not allowed; name each task once, at least one")
    return found


def checked(values: Any, shape: tuple[int | None, ...], what: str) -> Array:
    """Return an array of the shape asked for, None standing for any length.

    Raises
    ------
    ValueError
        For another shape.
    """
    array = np.asarray(values, dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{what} has shape {array.shape}, it must be ({wanted})")
    return array
