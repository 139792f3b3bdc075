"""The kernel 1 - |x - x'| on the unit interval, whose interpolant connects the dots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtlsk.relu.piecewise import Array, PiecewiseLinear


def kernel_coefficients(x: Array, y: Array) -> Array:
    """Return the a (N, K) of f(t) = sum_i a_i (1 - |t - u_i|), u_i = (x_i - x_1)/(x_N - x_1).

    They solve sum_i a_i (1 - |u_j - u_i|) = y_j. An inner a_i is minus half the kink at u_i, and
    with u from 0 to 1 the two equations of the ends hold one unknown each, so nothing is
    factorised. Over a length of 2 or more the kernel is not positive definite, hence the scaling.

    Parameters
    ----------
    x : array of shape (N,), increasing, N >= 2
    y : array of shape (N, K)

    **Reference** arXiv 2410.21696.
    """
    u = (np.asarray(x, dtype=np.float64) - x[0]) / (x[-1] - x[0])
    y = np.asarray(y, dtype=np.float64)
    a = np.empty_like(y)
    a[1:-1] = -PiecewiseLinear(u, y).kinks / 2
    a[0] = y[0] - (1 - u[1:-1]) @ a[1:-1]
    a[-1] = y[-1] - u[1:-1] @ a[1:-1]
    return a


def kernel_values(x: NDArray[np.floating], coefficients: Array, at: NDArray[np.floating]) -> Array:
    """Return sum_i a_i (1 - |u(t) - u_i|) (n, K) at t (n,).

    From x_1 to x_N this is connect-the-dots; outside, the slopes are not those of the last
    pieces.
    """
    length = x[-1] - x[0]
    values: Array = (1 - np.abs(np.subtract.outer(at, x)) / length) @ coefficients
    return values
