"""The closed form of one scalarization of linear multi-task regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtlsk.component import shown
from mtlsk.linear_mtl.gram import Array


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best rank-q model for fixed task weights.

    Attributes
    ----------
    value : float
        h_q(l) = l'v.
    v : (K,)
        v_i = |P yhat_i|^2, what the model explains of each task.
    mixing : (K, q')
        The basis of the model's span is Yhat mixing, orthonormal; q' < q only where l and G leave
        nothing to explain.
    """

    value: float
    v: Array
    mixing: Array


def scalarization_optimum(weights: Array, G: Array, rank: int) -> Optimum:
    """Return the rank-q model with the smallest sum_i l_i MSE_i, in closed form.

    h_q(l) = the sum of the q largest eigenvalues m_j of Lam^{1/2} G Lam^{1/2}, u_j their
    eigenvectors, and v_i = sum_{j <= q} ((G Lam^{1/2} u_j)_i)^2 / m_j.

    Parameters
    ----------
    weights : (K,)
        l >= 0.
    G : (K, K)
        Yhat'Yhat; v has its units.
    rank : int
        q.

    **Reference** arXiv 2308.13985 (Hu et al. 2023), section 3.
    """
    roots = np.sqrt(weights)
    values, vectors = np.linalg.eigh(G * np.outer(roots, roots))
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    keep = values > 1e-14 * max(values[0], np.finfo(np.float64).tiny)
    m, u = values[keep], vectors[:, keep]
    mixing = roots[:, None] * u / np.sqrt(m)
    return Optimum(float(m.sum()), np.asarray(((G @ mixing) ** 2).sum(axis=1)), mixing)


def as_task_weights(weights: Any, n_tasks: int) -> Array:
    """Return task weights (K,), None standing for equal ones, divided by their sum.

    Raises
    ------
    ValueError
        For another shape, negative or infinite numbers, or zeros only.
    """
    if weights is None:
        return np.full(n_tasks, 1 / n_tasks)
    try:
        array = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"weights={shown(weights)} is not allowed; use a number >= 0 for each task, or None"
        ) from None
    if array.shape != (n_tasks,):
        raise ValueError(
            f"weights has shape {array.shape} for {n_tasks} tasks; give one number a task, or None"
        )
    if not np.isfinite(array).all() or array.min() < 0 or array.sum() == 0:
        raise ValueError(
            f"weights={shown(array.tolist())} is not allowed; use finite numbers >= 0, "
            "one of them above 0"
        )
    return np.asarray(array / array.sum())
