"""A primal-dual interior point method: slower than a search over faces, but passes kinks."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtlsk.simplex.numerics import Array


def interior_point(
    linear: Array, gramian: Array, radius: float, start: Array, *, tol: float
) -> Array:
    """Return argmin of f(w) = linear'w + radius sqrt(w'Gw) over the simplex, shape (K,).

    Newton steps with Mehrotra's predictor and corrector (Nocedal and Wright 2006, ch. 14 and 19)
    on the KKT system grad f(w) - z = nu 1, w_i z_i = 0. As f is positively homogeneous of degree
    one, f(w) = grad f(w)'w and the duality gap at w is f(w) - min_i grad f(w)_i: the loop stops
    where it is ``tol`` |f|, or no longer shrinks.

    Parameters
    ----------
    linear : array of shape (K,)
    gramian : array of shape (K, K)
        Positive semi-definite, at most about 1 in size (scale both arguments first).
    radius : float
        Non-negative.
    start : array of shape (K,)
        A point inside the simplex with w'Gw > 0: f has a kink where w'Gw = 0.
    """
    k = len(linear)
    best, best_gap = start, np.inf
    w = start
    z: Array | None = None
    stalled = 0
    kkt = np.zeros((k + 1, k + 1))
    kkt[:k, k], kkt[k, :k] = -1.0, 1.0
    for _ in range(100):
        gw = gramian @ w
        norm = np.sqrt(max(float(w @ gw), 0.0))
        if norm == 0.0:
            break
        gradient = linear + radius * gw / norm
        value = float(gradient @ w)
        gap = value - gradient.min()
        if gap < 0.9 * best_gap:
            stalled = 0
        else:
            stalled += 1
        if gap < best_gap:
            best, best_gap = w, gap
        if gap <= tol * abs(value) or stalled > 10:
            break
        if z is None:
            z = gradient - gradient.min() + 0.1 * np.abs(gradient).max()
        kkt[:k, :k] = radius * (gramian / norm - np.outer(gw, gw) / norm**3)
        kkt[np.arange(k), np.arange(k)] += z / w
        mu = float(w @ z) / k
        try:
            inverse: Array = np.asarray(np.linalg.inv(kkt), dtype=np.float64)
            dw, dz = _newton(inverse, gradient, w, z, 0.0)
            reached = float((w + _step(w, dw) * dw) @ (z + _step(z, dz) * dz)) / k
            centring = min(max((reached / mu) ** 3, 1e-8), 1.0)
            dw, dz = _newton(inverse, gradient, w, z, centring * mu)
        except np.linalg.LinAlgError:
            break
        w_next = _descend(linear, gramian, radius, w, dw, centring * mu)
        if w_next is None:
            break
        w = w_next
        z = z + _step(z, dz) * dz
    return best


def _newton(inverse: Array, gradient: Array, w: Array, z: Array, mu: float) -> tuple[Array, Array]:
    """Return the Newton step (dw, dz) on grad f - z = nu 1, w z = mu, sum w = 1."""
    slack = mu - w * z
    right = np.append(z - gradient + slack / w, 0.0)
    dw = (inverse @ right)[: len(w)]
    return dw, (slack - z * dw) / w


def _descend(
    linear: Array, gramian: Array, radius: float, w: Array, dw: Array, mu: float
) -> Array | None:
    """Return the point along ``dw`` where f(w) - mu sum ln w falls enough (Armijo), or None.

    Near the kink of f full Newton steps overshoot.
    """

    def barrier(x: Array) -> float:
        norm = float(np.sqrt(max(float(x @ gramian @ x), 0.0)))
        return float(linear @ x) + radius * norm - mu * float(np.log(x).sum())

    gw = gramian @ w
    norm = float(np.sqrt(float(w @ gw)))
    slope = float((linear + radius * gw / norm - mu / w) @ dw)
    here, step = barrier(w), _step(w, dw)
    # what rounding hides: the terms of f may cancel
    slack = 1e-13 * (float(np.abs(linear) @ w) + radius * norm + abs(here))
    for _ in range(40):
        x = np.maximum(w + step * dw, 1e-300)
        x = x / float(x.sum())
        if barrier(x) <= here + 1e-4 * step * min(slope, 0.0) + slack:
            return x
        step /= 2
    return None


def _step(x: Array, dx: Array) -> float:
    """Return the longest step up to 1 that keeps x + step dx > 0."""
    with np.errstate(divide="ignore"):
        longest: Any = np.min(np.where(dx < 0, -x / np.where(dx < 0, dx, -1.0), np.inf))
    return min(1.0, 0.995 * float(longest))
