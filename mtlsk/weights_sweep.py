"""Weights of a sweep of linear scalarization: a lattice of the simplex, or uniform draws."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]

NEAR = 1e-9
"""Distance of points that are the same."""


def lattice(k: int, n: int) -> Weights:
    """Return n spread-out points of the simplex of K weights, its centre first.

    They are of the lattice of points with coordinates i/H, first for H = 1 (the corners), then,
    once all of these are taken, for H = 2, 4, ...: each next one is the one farthest from those
    taken. So a longer sweep begins with the shorter one.

    **Reference** Das, Dennis: Normal-boundary intersection (SIAM J. Optimization 8, 1998), Section
    3: the lattice. The order is ours.

    Parameters
    ----------
    k, n : int

    Returns
    -------
    (n, k); rows sum to 1.
    """
    if k == 1:
        return np.ones((n, 1))
    taken = np.full((1, k), 1.0 / k)
    h = 1
    while len(taken) < n:
        points = _lattice_of(k, h)
        distance = np.full(len(points), np.inf)
        for there in taken:
            distance = np.minimum(distance, np.abs(points - there).sum(axis=1))
        while len(taken) < n and distance.max() > NEAR:
            taken = np.vstack([taken, points[int(distance.argmax())]])
            distance = np.minimum(distance, np.abs(points - taken[-1]).sum(axis=1))
        h *= 2
    return taken


def _lattice_of(k: int, h: int) -> Weights:
    """Return all points of the simplex with coordinates i/H."""
    cuts = itertools.combinations(range(h + k - 1), k - 1)
    bars = np.array([(-1, *cut, h + k - 1) for cut in cuts])
    points: Weights = (np.diff(bars, axis=1) - 1) / h
    return points


def dirichlet(k: int, n: int, seed: int) -> Weights:
    """Return n points of the simplex of K weights, drawn uniformly; the first is its centre.

    Each row has a seed of its own, so that a longer sweep begins with the shorter one.
    """
    rows = [np.full(k, 1.0 / k)]
    rows += [np.random.default_rng([seed, i]).dirichlet(np.ones(k)) for i in range(1, n)]
    return np.array(rows[:n])
