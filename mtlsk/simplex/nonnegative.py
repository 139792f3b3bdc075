"""Non-negative least squares on an eigen-factor of the cosines: slower, but no input stops it."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from mtlsk.simplex.numerics import Array


def _factor(gramian: Array) -> tuple[Array, Array]:
    """Return (S, norms) with S'S = cosines of the tasks: columns of S are unit vectors."""
    norms = np.sqrt(np.diagonal(gramian))
    eigenvalues, vectors = np.linalg.eigh(gramian / np.outer(norms, norms))
    return np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * vectors.T, norms


def shortest_in_hull(gramian: Array) -> Array:
    """Return argmin_w w'Gw over the simplex, shape (K,).

    With v_i = w_i |g_i| (which makes norm ratios of 1e3 harmless) and t_i = 1/|g_i| the problem
    min v'Cv s.t. t'v = 1, v >= 0 has, up to a factor, the solution of the non-negative least
    squares problem min_v v'Cv + (t'v - 1)^2: their KKT conditions are multiples of each other.
    Every diagonal element of ``gramian`` must be positive.
    """
    s, norms = _factor(gramian)
    t = norms.min() / norms
    a = np.vstack([s, t])
    v, _ = nnls(a, np.append(np.zeros(len(s)), 1.0))
    w: Array = v / norms
    return w / float(w.sum())


def shortest_increase(gramian: Array, start: Array) -> Array:
    """Return a = start + u with u = argmin_{u >= 0} (start + u)'G(start + u), shape (K,).

    For starts (n, K), one for each. Every diagonal element of ``gramian`` must be positive.
    """
    starts = np.atleast_2d(start)
    increased = starts.copy()
    conflicts = np.flatnonzero((starts @ gramian < 0).any(1))  # the others are increased by 0
    if len(conflicts):
        s, norms = _factor(gramian)
        targets = -(norms * starts[conflicts]) @ s.T
        for i, target in zip(conflicts, targets, strict=True):
            size = float(np.abs(target).max())  # short gradients as precisely as long ones
            if size > 0:
                v, _ = nnls(s, target / size)
                increased[i] += size * v / norms
    return increased.reshape(start.shape)
