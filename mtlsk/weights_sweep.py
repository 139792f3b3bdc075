"""Weights of a sweep of linear scalarization: an even lattice of the simplex, or uniform draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]


def lattice(k: int, n: int) -> Weights:
    """Return n evenly spaced points of the simplex of K weights, its centre first.

    They are the points with coordinates i/H, for the smallest H that has n of them; where it has
    more, each next one is the one farthest from those taken.

    **Reference** Das, Dennis: Normal-boundary intersection (SIAM J. Optimization 8, 1998), Section
    3: the lattice. The order is ours.

    Parameters
    ----------
    k, n : int

    Returns
    -------
    (n, k); rows sum to 1.
    """
    centre = np.full((1, k), 1.0 / k)
    if k == 1:
        return np.ones((n, 1))
    h = 1
    while math.comb(h + k - 1, k - 1) < n:
        h += 1
    cuts = itertools.combinations(range(h + k - 1), k - 1)
    bars = np.array([(-1, *cut, h + k - 1) for cut in cuts])
    points = (np.diff(bars, axis=1) - 1) / h
    taken = centre
    distance = np.full(len(points), np.inf)
    while len(taken) < n:
        distance = np.minimum(distance, np.abs(points - taken[-1]).sum(axis=1))
        taken = np.vstack([taken, points[int(distance.argmax())]])
    return taken


def dirichlet(k: int, n: int, seed: int) -> Weights:
    """Return n points of the simplex of K weights, drawn uniformly; the first is its centre.

    Each row has a seed of its own, so that a longer sweep begins with the shorter one.
    """
    rows = [np.full(k, 1.0 / k)]
    rows += [np.random.default_rng([seed, i]).dirichlet(np.ones(k)) for i in range(1, n)]
    return np.array(rows[:n])
