"""What a prediction is worth, task by task: R^2 and accuracy over the labelled rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtlsk.modules import Task

Array = NDArray[np.float64]


def r2_per_task(y: ArrayLike, prediction: ArrayLike, sample_weight: Array | None = None) -> Array:
    """Return R^2 = 1 - sum w (y - f)^2 / sum w (y - mean_w y)^2 of each task, shape (K,).

    Over the labelled rows of each task (NaN in y is a missing label), in float64. A constant
    target gives 1 where it is predicted exactly and 0 otherwise, as in scikit-learn; a task with
    fewer than two labels gives NaN.

    Parameters
    ----------
    y, prediction : of shape (n,) or (n, K)
    sample_weight : array of shape (n, K), or None for equal weights
    """
    truth, fit = matrices(y, prediction)
    weights = np.ones(truth.shape) if sample_weight is None else sample_weight
    scores = np.full(truth.shape[1], np.nan)
    for k, (t, f, w) in enumerate(zip(truth.T, fit.T, weights.T, strict=True)):
        there = ~np.isnan(t) & (w > 0)
        if there.sum() >= 2:
            scores[k] = r2(t[there], f[there], w[there])
    return scores


def r2(y: Array, prediction: Array, weights: Array) -> float:
    """Return R^2 of one task whose labels (n,) are all there."""
    residual = float(weights @ (y - prediction) ** 2)
    spread = float(weights @ (y - np.average(y, weights=weights)) ** 2)
    return 1 - residual / spread if spread > 0 else float(residual == 0)


def accuracy_per_task(
    y: ArrayLike, prediction: ArrayLike, sample_weight: Array | None = None
) -> Array:
    """Return the share of the labelled rows whose class index is right, shape (K,).

    NaN for a task without a label. Shapes as in :func:`r2_per_task`.
    """
    truth, fit = matrices(y, prediction)
    weights = np.ones(truth.shape) if sample_weight is None else sample_weight
    weights = np.where(np.isnan(truth), 0.0, weights)
    total = weights.sum(axis=0)
    right = np.where(truth == fit, weights, 0.0).sum(axis=0)
    share: Array = np.divide(right, total, out=np.full(len(total), np.nan), where=total > 0)
    return share


def score_per_task(
    labels: Array, prediction: Array, tasks: Sequence[Task], sample_weight: Array | None = None
) -> Array:
    """Return R^2 of each regression and accuracy of each classification, shape (K,)."""
    scores = np.full(len(tasks), np.nan)
    for numeric, score in ((True, r2_per_task), (False, accuracy_per_task)):
        mine = [k for k, task in enumerate(tasks) if (task.classes is None) == numeric]
        if mine:
            own = None if sample_weight is None else sample_weight[:, mine]
            scores[mine] = score(labels[:, mine], prediction[:, mine], own)
    return scores


def matrices(y: ArrayLike, prediction: ArrayLike) -> tuple[Array, Array]:
    """Return both as (n, K) float64; ValueError where they differ in shape."""
    truth = np.asarray(y, dtype=np.float64)
    truth = truth.reshape(len(truth), -1)
    fit = np.asarray(prediction, dtype=np.float64).reshape(len(truth), -1)
    if fit.shape != truth.shape:
        raise ValueError(f"y has {truth.shape[1]} tasks, but the prediction has {fit.shape[1]}")
    return truth, fit
