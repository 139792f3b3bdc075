"""Piecewise linear functions of one number: their cost as ReLU networks, and where it ties."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PiecewiseLinear:
    """The function through the points (x_i, y_i), affine between them and beyond the ends.

    As a shallow ReLU network with a free affine part it has one neuron at each x_i where the
    slope changes, and its least cost is sum_i |s_{i+1} - s_i|_2.

    Attributes
    ----------
    x : array of shape (N,), increasing
    y : array of shape (N, K)
    """

    x: Array
    y: Array

    def __call__(self, at: NDArray[np.floating]) -> Array:
        """Return the values (n, K) at numbers (n,)."""
        at = np.asarray(at, dtype=np.float64)
        left = np.clip(np.searchsorted(self.x, at, side="right") - 1, 0, len(self.x) - 1)
        slopes = np.concatenate([self.slopes, self.slopes[-1:]]) if len(self.x) > 1 else 0 * self.y
        values: Array = self.y[left] + slopes[left] * (at - self.x[left])[:, None]
        return values

    @cached_property
    def slopes(self) -> Array:
        """Slopes s_i between points i and i + 1, (N - 1, K)."""
        slopes: Array = np.diff(self.y, axis=0) / np.diff(self.x)[:, None]
        return slopes

    @cached_property
    def kinks(self) -> Array:
        """Changes of slope at the inner points 1 to N - 2, (N - 2, K)."""
        return np.diff(self.slopes, axis=0)

    @property
    def cost(self) -> float:
        """sum_i |s_{i+1} - s_i|_2, the least sum_k |v_k|_2 |w_k| of a network that is this."""
        return float(np.linalg.norm(self.kinks, axis=1).sum())

    def rounding(self, tol: float) -> Array:
        """Return how large a kink (N - 2,) may be if x and y are known to a share ``tol``."""
        size = np.linalg.norm(self.y, axis=1)
        steep = np.linalg.norm(self.slopes, axis=1)
        ends = np.abs(self.x)
        by_y = size[1:] + size[:-1]
        by_x = steep * (ends[1:] + ends[:-1])
        noise = tol * (by_y + by_x) / np.diff(self.x)
        found: Array = noise[1:] + noise[:-1]
        return found


def ambiguous_intervals(function: PiecewiseLinear, tol: float = 1e-12) -> NDArray[np.intp]:
    """Return the i for which the kinks at x_i and x_{i+1} are non-zero and point the same way.

    s_i - s_{i-1} = alpha d and s_{i+1} - s_i = beta d with alpha, beta > 0: then the two may be
    merged into one between them at equal cost (``merge_kinks``), and only then is connecting
    the dots not the one interpolant of least cost.

    Parameters
    ----------
    function : PiecewiseLinear
        Through the data, every datum one of its points.
    tol : float
        The share to which x and y are known: kinks that this can explain count as none, and
        directions that it can explain as the same.

    **Reference** arXiv 2410.21696.
    """
    size = np.linalg.norm(function.kinks, axis=1)
    noise = function.rounding(tol)
    bent = size > noise
    with np.errstate(divide="ignore", invalid="ignore"):
        way = function.kinks / size[:, None]
        doubt = noise / size
    apart = np.linalg.norm(way[1:] - way[:-1], axis=1)
    same = apart <= doubt[1:] + doubt[:-1] + 1e-15
    return np.flatnonzero(bent[1:] & bent[:-1] & same) + 1


def merge_kinks(function: PiecewiseLinear, i: int) -> PiecewiseLinear:
    """Return the function with the kinks at x_i and x_{i+1} merged into one between them.

    The lines left of x_i and right of x_{i+1} are drawn on to where they meet, at
    x_i + (x_{i+1} - x_i) beta / (alpha + beta). For an i of ``ambiguous_intervals`` it goes
    through the same points and costs the same.
    """
    x, y = function.x, function.y
    alpha, beta = np.linalg.norm(function.kinks[i - 1 : i + 1], axis=1)
    place = x[i] + (x[i + 1] - x[i]) * beta / (alpha + beta)
    top = y[i] + function.slopes[i - 1] * (place - x[i])
    return PiecewiseLinear(
        np.concatenate([x[:i], [place], x[i + 2 :]]), np.concatenate([y[:i], [top], y[i + 2 :]])
    )
