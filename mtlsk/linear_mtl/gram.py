"""The Gram matrix of the fitted targets, checked, and factorised at unit diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlsk.component import shown

Array = NDArray[np.float64]

SINGULAR = 1e-10
"""Eigenvalues of the unit-diagonal Gram matrix below this share of the largest count as zero."""


@dataclass(frozen=True, eq=False)
class Gram:
    """A Gram matrix G = Yhat'Yhat (K, K), taken apart.

    Attributes
    ----------
    matrix : (K, K)
        G itself.
    tasks : indices of the K' tasks with G_ii > 0
        The others are not predicted by any X: v_i = 0 for every model.
    unit : (K', K')
        G~ = D^{-1/2} G D^{-1/2} of those tasks, D = diag(G).
    factor : (K', r)
        A with A A' = G~; r is the rank of G.
    """

    matrix: Array
    tasks: NDArray[np.int64]
    unit: Array
    factor: Array

    @property
    def scale(self) -> Array:
        """The diagonal of G at ``tasks`` (K',): from unit-diagonal units to those of G."""
        return self.matrix.diagonal()[self.tasks].copy()

    @property
    def rank(self) -> int:
        """The rank of G."""
        return int(self.factor.shape[1])

    def units_of(self, v: Array) -> Array:
        """Return v~_i = v_i / G_ii of the tasks (K',), from v (K,)."""
        return np.asarray(v[self.tasks] / self.scale)

    def back(self, unit: Array) -> Array:
        """Return v (K,) from v~ (K',): zero for the tasks left out."""
        v = np.zeros(len(self.matrix))
        v[self.tasks] = unit * self.scale
        return v


def as_gram(G: Any) -> Gram:
    """Check and factorise a Gram matrix (K, K); singular ones are allowed.

    Raises
    ------
    ValueError
        For anything but a finite symmetric positive semi-definite matrix other than 0.
    """
    if isinstance(G, Gram):
        return G
    try:
        matrix = np.array(G, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"G={shown(G)} is not allowed; give a (K, K) array of numbers") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"G has shape {matrix.shape}; it must be (K, K), G = Yhat'Yhat")
    if not np.isfinite(matrix).all():
        raise ValueError("G holds NaN or infinity; leave out tasks and rows that have them")
    size = np.abs(matrix).max()
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-9 * size):
        raise ValueError("G is not symmetric; a Gram matrix Yhat'Yhat is")
    if size == 0:
        raise ValueError("G is 0: no target is predicted at all; there is nothing to explore")
    matrix = (matrix + matrix.T) / 2
    diagonal = matrix.diagonal()
    if diagonal.min() < -1e-9 * size:
        raise ValueError(f"G has {diagonal.min():.3g} on its diagonal; a Gram matrix has squares")
    tasks = np.flatnonzero(diagonal > 1e-20 * diagonal.max())
    roots = np.sqrt(diagonal[tasks])
    unit = matrix[np.ix_(tasks, tasks)] / np.outer(roots, roots)
    values, vectors = np.linalg.eigh(unit)
    if values[0] < -1e-7 * values[-1]:
        raise ValueError(
            f"G has the negative eigenvalue {values[0]:.3g} (unit diagonal); "
            "a Gram matrix Yhat'Yhat is positive semi-definite"
        )
    keep = values > SINGULAR * values[-1]
    return Gram(matrix, tasks, unit, vectors[:, keep] * np.sqrt(values[keep]))


def check_rank(rank: Any, n_tasks: int) -> int:
    """Return a rank q within 1..K as an int.

    Raises
    ------
    ValueError
        For anything else.
    """
    whole = isinstance(rank, int | np.integer) and not isinstance(rank, bool)
    if not whole or not 1 <= rank <= n_tasks:
        raise ValueError(
            f"rank={shown(rank)} is not allowed; use a whole number from 1 to {n_tasks}, "
            "the number of tasks"
        )
    return int(rank)
