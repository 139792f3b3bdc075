"""The two minima over the simplex that aggregators ask for: by faces first, for certain after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtlsk.simplex.faces import search_faces
from mtlsk.simplex.interior import interior_point
from mtlsk.simplex.nonnegative import shortest_in_hull
from mtlsk.simplex.numerics import Array


def min_norm_point(gramian: Array, support: Sequence[int] | None = None) -> Array:
    """Return the weights of the shortest vector in the convex hull: argmin_w w'Gw, shape (K,).

    Exact up to rounding: a search over faces, and non-negative least squares where it gives up.

    Parameters
    ----------
    gramian : array of shape (K, K)
        Positive semi-definite, its diagonal positive.
    support : sequence of int, or None for all
        A guess of where w > 0, that of a similar Gramian; the answer does not depend on it.
    """
    found = search_faces(gramian, support or range(len(gramian)))
    return shortest_in_hull(gramian) if found is None else found


def linear_plus_norm(
    linear: Array, gramian: Array, radius: float, start: Array, *, tol: float = 1e-12
) -> Array:
    """Return argmin of f(w) = linear'w + radius sqrt(w'Gw) over the simplex, shape (K,).

    Exact up to rounding: a search over faces from that of ``start``. Where it gives up (at a kink
    of f, w'Gw = 0, above all) an interior point method goes on from ``start``.

    Parameters
    ----------
    linear : array of shape (K,)
    gramian : array of shape (K, K)
        Positive semi-definite, at most about 1 in size (scale both arguments first).
    radius : float
        Non-negative.
    start : array of shape (K,)
        A point of the simplex, far from kinks if possible; the answer does not depend on it.
    tol : float
        Relative duality gap at which the interior point method stops.
    """
    k = len(linear)
    if radius > 0:
        found = search_faces(gramian, start.nonzero()[0].tolist(), linear, radius)
        if found is not None:
            return found
    inside = start if bool((start > 0).all()) else 0.5 * start + 0.5 / k
    if float(inside @ gramian @ inside) <= 0:  # off the kink
        inside = np.arange(1, k + 1) / (k * (k + 1) / 2)
    return interior_point(linear, gramian, radius, inside, tol=tol)
