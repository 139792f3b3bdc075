"""A local search for the rank-q model that lifts the worst task highest, for any q."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from mtlsk.linear_mtl.gram import Array

PASSES, STARTS = 3, 6
BETTER = 1e-6
"""Gains, as a share of the mean G_ii, below which no model counts as better."""


def undominated(v: Array, rows: Array, rank: int, random_state: int) -> Array:
    """Return v (K,), or a model at least as good in every task that no local search betters."""
    scale = float((rows**2).sum(axis=1).mean())
    for _ in range(PASSES):
        before = v
        for i in range(len(v)):
            slope = np.full(len(v), 1e-3)  # the others must gain too, next to nothing
            slope[i] = 1.0
            better = climb(rows, rank, -v, STARTS, random_state, slope)
            if ((better - v) / slope).min() > BETTER * scale:
                v = better
        if v is before:
            break
    return v


def climb(
    rows: Array,
    rank: int,
    lift: Array,
    starts: int,
    random_state: int,
    slope: Array | None = None,
) -> Array:
    """Return the best v (K,) found for max min_i (v_i + lift_i) / slope_i.

    v_i = |U'a_i|^2 with U'U = I.

    Sequential quadratic programmes over U (r, q) and the level, from random orthonormal U; the
    result is a point of the feasible region, and no proof that there is none better.

    Parameters
    ----------
    rows : (K, r)
        The a_i.
    rank : int
        q < r.
    lift : (K,)
    starts, random_state : int
    slope : (K,) or None
        Positive; None is 1.
    """
    k, r = rows.shape
    rng = np.random.default_rng(random_state)
    scale = float((rows**2).sum(axis=1).mean())
    a, up = rows / np.sqrt(scale), lift / scale
    rise = np.ones(k) if slope is None else slope
    upper = np.triu_indices(rank)

    def frame(z: Array) -> Array:
        return np.asarray(z[:-1].reshape(r, rank))

    def slack(z: Array) -> Array:
        return np.asarray(((a @ frame(z)) ** 2).sum(axis=1) + up - rise * z[-1])

    def slack_gradient(z: Array) -> Array:
        inner = 2 * (a @ frame(z))[:, None, :] * a[:, :, None]  # (K, r, q)
        return np.column_stack([inner.reshape(k, -1), -rise])

    def bend(z: Array) -> Array:
        U = frame(z)
        return np.asarray((U.T @ U - np.eye(rank))[upper])

    def bend_gradient(z: Array) -> Array:
        U = frame(z)
        found = np.zeros((len(upper[0]), r, rank))
        for c, (i, j) in enumerate(zip(*upper, strict=True)):
            found[c, :, i] += U[:, j]
            found[c, :, j] += U[:, i]
        return np.column_stack([found.reshape(len(found), -1), np.zeros(len(found))])

    down = np.zeros(r * rank + 1)
    down[-1] = -1.0
    best, height = np.zeros(k), -np.inf
    for _ in range(starts):
        U = np.linalg.qr(rng.normal(size=(r, rank)))[0]
        level = float(((((a @ U) ** 2).sum(axis=1) + up) / rise).min())
        found = minimize(
            lambda z: -z[-1],
            np.append(U.ravel(), level),
            jac=lambda z: down,
            constraints=[
                {"type": "ineq", "fun": slack, "jac": slack_gradient},
                {"type": "eq", "fun": bend, "jac": bend_gradient},
            ],
            method="SLSQP",
            options={"maxiter": 200, "ftol": 1e-12},
        )
        if not np.isfinite(found.x).all():
            continue
        U = np.linalg.qr(frame(found.x))[0]
        v = ((a @ U) ** 2).sum(axis=1)
        if ((v + up) / rise).min() > height:
            best, height = v * scale, float(((v + up) / rise).min())
    return best
