"""Weights in fair shares: each task's progress falls with what it is weighted by."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dposv

from mtlsk.simplex.minimum import min_norm_point
from mtlsk.simplex.numerics import EPS, Array, rounding
from mtlsk.simplex.units import unit_cosines

FRACTION = 0.99  # of the way to where a weight would be zero
MOST_STEPS = 200  # a few are enough but where weights of very different sizes are needed


def fair_weights(gramian: Array, alpha: float, *, tol: float = 1e-10) -> Array:
    """Return w > 0 with (G w)_k = w_k^(-1/alpha), shape (K,).

    It is the minimiser of the convex w'Gw/2 - sum_k phi(w_k), phi' = w^(-1/alpha), found by
    Newton's method with a line search. In u_k = w_k |g_k|, cosines C and
    r_k = |g_k|^((1 - alpha)/(1 + alpha)) the equation is C u = r (u/r)^(-1/alpha), which at
    alpha = 1 does not know the lengths; u = r solves it for orthogonal gradients.

    At a Pareto-stationary point w is not bounded. A ridge of 16 K eps on the cosines bounds it;
    where it is felt, and a convex combination of the unit gradients is zero up to rounding, its
    weights, over |g_k|, are returned instead: the update is zero.

    Parameters
    ----------
    gramian : array of shape (K, K)
        Positive semi-definite, its diagonal positive.
    alpha : float
        Between 0.05 and 20, or powers overflow.
    tol : float
        The error of each equation relative to its right side, where rounding allows it.
    """
    cosines, norms = unit_cosines(gramian)
    k = len(norms)
    ridge = 16 * k * EPS
    c = cosines.copy()
    c.flat[:: k + 1] += ridge
    rounded = 8 * EPS * np.abs(c)
    power = -1 / alpha
    r = norms ** ((1 - alpha) / (1 + alpha))
    u = right = r
    residual = c @ u - right
    for _ in range(MOST_STEPS):
        excess = np.abs(residual) - tol * right
        if excess.max() <= 0 or (excess - rounded @ u).max() <= 0:
            break
        hessian = c.copy()
        hessian.flat[:: k + 1] += right / (alpha * u)
        _, step, failed = dposv(hessian, -residual)
        if failed:
            break
        slope = float(residual @ step)
        t = min(1.0, FRACTION / max(float((-step / u).max()), EPS))
        while t > EPS:
            moved = u + t * step
            right = r * (moved / r) ** power
            residual = c @ moved - right
            # the slope along the step: at most a little beyond the minimum on it
            if float(residual @ step) <= -0.5 * slope:
                break
            t /= 2
        u = moved
    if ridge * float((u / right).max()) > 1e-3:
        shortest = min_norm_point(cosines)
        if float(shortest @ cosines @ shortest) <= rounding(cosines, shortest):
            w: Array = shortest / norms
            return w / float(w.sum())
    return u / norms
