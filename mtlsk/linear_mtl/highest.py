"""The rank-q model that lifts the worst task highest: exact for q = 1 and K - 1, else a search."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import nnls

from mtlsk.linear_mtl.climb import climb, undominated
from mtlsk.linear_mtl.gram import Array, as_gram, check_rank

MANY = 12
"""Tasks up to which all 2^(K - 1) sign patterns are looked at."""
STEPS = 60  # bisections: the interval shrinks to its rounding


@dataclass(frozen=True, eq=False)
class Balanced:
    """A model whose worst task is as good as it can be.

    Attributes
    ----------
    v : (K,)
        What it explains of each task, in the units of G.
    level : float
        min_i (v_i - base_i), the largest there is where ``exact``.
    exact : bool
        False for a local search: there may be a better one.
    """

    v: Array
    level: float
    exact: bool


def balanced_solution(
    G: Any, rank: int, squares: Any = None, *, starts: int = 20, random_state: int = 0
) -> Balanced:
    """Return the rank-q model with the smallest max_i MSE_i, which is max min_i (v_i - |y_i|^2).

    MSE_i = (|y_i|^2 - v_i) / n. With ranks q >= rank(G) v_i = G_ii. For q = 1 v = t^2 and
    t'G^+ t <= 1, a least distance problem for each pattern of signs; for q = K - 1 and a regular G
    v_i = G_ii - t_i^2 and t'G^{-1}t = 1, a box whose corners are looked at. Both are exact and take
    K <= 12 tasks. Any other q is a local search from ``starts`` points, ``exact`` False. Tasks that
    are better than the worst are made as good as a local search can, at no other's cost.

    Parameters
    ----------
    G : (K, K)
        Yhat'Yhat.
    rank : int
        q, from 1 to K.
    squares : (K,) or None
        |y_i|^2 in the units of G; None takes G_ii, tasks that X predicts perfectly.
    starts, random_state : int
        Of the search.

    Raises
    ------
    ValueError
        For a rank or matrix that is not allowed, or squares that are not K numbers >= G_ii.
    """
    gram = as_gram(G)
    diagonal = gram.matrix.diagonal()
    q = check_rank(rank, len(diagonal))
    base = diagonal.copy() if squares is None else np.array(squares, dtype=np.float64)
    if base.shape != diagonal.shape or not (base >= diagonal * (1 - 1e-6)).all():
        raise ValueError(
            f"squares must be {len(diagonal)} numbers, |y_i|^2, none below G_ii; it is {squares!r}"
        )
    if gram.rank <= q:
        return Balanced(diagonal.copy(), float((diagonal - base).min()), True)
    rows = gram.factor * np.sqrt(gram.scale)[:, None]  # a_i with v_i = |Q a_i|^2
    lift = -base[gram.tasks]
    v, exact = highest(rows, q, lift, starts, random_state)
    if np.ptp(v + lift) > 1e-6 * float(gram.scale.mean()):  # some tasks may still have room
        v = undominated(v, rows, q, random_state)
    full = np.zeros(len(diagonal))
    full[gram.tasks] = v
    return Balanced(full, float((full - base).min()), exact)


def highest(
    rows: Array, rank: int, lift: Array, starts: int, random_state: int
) -> tuple[Array, bool]:
    """Return the v (K,) with the largest min_i (v_i + lift_i), v_i = |Q a_i|^2, and if exact."""
    k, r = rows.shape
    if rank == 1 and k <= MANY:
        return one_direction(rows, lift), True
    if rank == k - 1 and r == k and k <= MANY:
        return all_but_one(rows, lift), True
    return climb(rows, rank, lift, starts, random_state), False


def patterns(k: int) -> Array:
    """Return all patterns of signs (2^(k - 1), k) up to the sign of the whole."""
    return np.array([(1.0, *rest) for rest in product((1.0, -1.0), repeat=k - 1)])


def one_direction(rows: Array, lift: Array) -> Array:
    """Solve q = 1: v_i = (a_i'u)^2 with |u| = 1, by the shortest u with s_i a_i'u >= c_i^{1/2}."""
    low, top = float(lift.min()), float((lift + (rows**2).sum(axis=1)).min())

    def shortest(signs: Array, level: float) -> Array | None:
        return least_distance(signs[:, None] * rows, np.sqrt(np.clip(level - lift, 0, None)))

    best, margin = None, 1e-12 * (top - low)
    for signs in patterns(len(rows)):
        if best is not None and shortest(signs, low + margin) is None:
            continue  # most patterns end here: no better than the best so far
        high = top
        for _ in range(STEPS):
            middle = (low + high) / 2
            u = shortest(signs, middle)
            low, high, best = (middle, high, u) if u is not None else (low, middle, best)
    if best is None or not best.any():
        best = np.linalg.svd(rows)[2][0]  # the worst task cannot be lifted at all
    return np.asarray((rows @ (best / np.linalg.norm(best))) ** 2)


def least_distance(C: Array, c: Array) -> Array | None:
    """Return the shortest u with Cu >= c, or None where it is longer than 1 or there is none.

    **Reference** Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23: problem LDP.
    """
    if not c.any():
        return np.zeros(C.shape[1])
    size = c.max()
    stacked = np.vstack([C.T / size, c / size])
    goal = np.zeros(len(stacked))
    goal[-1] = 1.0
    z, _ = nnls(stacked, goal)
    residual = stacked @ z - goal
    if residual[-1] > -1e-14:
        return None
    u = -residual[:-1] / residual[-1]
    return u if u @ u <= 1 and (C @ u >= c - 1e-9 * size).all() else None


def all_but_one(rows: Array, lift: Array) -> Array:
    """Solve q = K - 1: v_i = G_ii - t_i^2, by the smallest box of t not inside t'G^{-1}t < 1."""
    diagonal = (rows**2).sum(axis=1)
    signs = patterns(len(rows))
    low, high = float(lift.min()), float((lift + diagonal).min())

    def corner(level: float) -> tuple[float, Array]:
        t = signs * np.sqrt(np.clip(diagonal + lift - level, 0, None))
        sizes = (np.linalg.solve(rows, t.T) ** 2).sum(axis=0)
        at = int(sizes.argmax())
        return float(sizes[at]), t[at]

    size, t = corner(high)
    if size < 1:
        for _ in range(STEPS):
            middle = (low + high) / 2
            if corner(middle)[0] >= 1:
                low = middle
            else:
                high = middle
        size, t = corner(low)
    return np.asarray(diagonal - t**2 / size)
