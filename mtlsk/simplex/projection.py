"""The projection on the simplex."""

from __future__ import annotations

import numpy as np

from mtlsk.simplex.numerics import Array


def project_on_simplex(v: Array) -> Array:
    """Return the point of the simplex nearest to ``v`` in the Euclidean norm, shape (K,).

    w_i = max(v_i - tau, 0) with tau such that the w_i sum to 1, by sorting (Held, Wolfe and
    Crowder 1974).
    """
    u = np.sort(v)[::-1]
    excess = np.cumsum(u) - 1.0
    k = np.arange(1, len(v) + 1)
    last = np.nonzero(u - excess / k > 0)[0][-1]
    projection: Array = np.maximum(v - excess[last] / (last + 1), 0.0)
    return projection
