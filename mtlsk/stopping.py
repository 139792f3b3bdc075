"""When a study has come to rest: the hypervolume of its front hardly grows any more."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mtlsk.pareto import REFERENCE, hypervolume, non_dominated


def growth(values: ArrayLike, window: int) -> float:
    """Return by what share of its hypervolume a front grew in its last ``window`` points.

    Both fronts are measured in the box that the present one spans, with the reference point at
    ``REFERENCE`` of it, as fronts are compared in a report.

    Parameters
    ----------
    values : (n, m)
        Every objective minimised, in the order in which trials ended.
    window : int

    Returns
    -------
    float in [0, 1]; 1 where there are no more points than ``window``.
    """
    points = np.asarray(values, dtype=np.float64)
    if len(points) <= window:
        return 1.0
    front = points[non_dominated(points)]
    ideal, nadir = front.min(axis=0), front.max(axis=0)
    # one best value in an objective: the worst of all spans the box there
    span = np.where(nadir > ideal, nadir - ideal, points.max(axis=0) - ideal)
    scaled = (points - ideal) / np.where(span > 0, span, 1.0)
    reference = np.full(points.shape[1], REFERENCE)
    before = scaled[:-window]
    before = before[non_dominated(before)]
    now = hypervolume((front - ideal) / np.where(span > 0, span, 1.0), reference)
    return 1.0 - hypervolume(before, reference) / now
