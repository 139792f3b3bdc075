"""Points spread over the simplex, for sweeps of task weights."""

from __future__ import annotations

import numpy as np

from mtlsk.simplex.numerics import Array


def spread_on_simplex(n: int, k: int, rng: np.random.RandomState) -> Array:
    """Return n points of the simplex, shape (n, k), to sweep the weights of k tasks over.

    For k = 2 the midpoints of n equal parts, (i + 1/2) / n, without draws; for more the centre
    first and then n - 1 draws of the uniform distribution on the simplex.
    """
    if k == 2:
        first = (np.arange(n) + 0.5) / n
        return np.stack([first, 1 - first], axis=1)
    drawn: Array = rng.dirichlet(np.ones(k), n - 1)
    return np.vstack([np.full((1, k), 1 / k), drawn])
