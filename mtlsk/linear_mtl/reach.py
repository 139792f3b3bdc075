"""How far a point lies below what scalarization and its mixtures reach: a linear programme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog

from mtlsk.linear_mtl.gram import Array, as_gram, check_rank
from mtlsk.linear_mtl.optimum import scalarization_optimum

TOL = 1e-8
ROUNDS = 500
REACHED = 1e-6
"""Gaps that are closer to 0 count as 0: the point is a scalarization optimum."""


@dataclass(frozen=True, eq=False)
class Reach:
    """Where a point v lies below the convex hull of all rank-q models, and the mixture above it.

    Attributes
    ----------
    gap : float
        max_l l'v~ - h_q(l) over the simplex, as a share of each task's G_ii: 0 for a scalarization
        optimum, negative below the hull, positive for a v that no mixture of models reaches.
    error : float
        The true maximum lies within [gap, gap + error].
    weights : (K,)
        The maximising l, of the unit-diagonal problem.
    probabilities : (m,)
        Of the mixture's members, m <= K.
    task_weights : (m, K)
        Task weights of the members, in the units of G: each is a scalarization optimum.
    v : (m, K)
        What each member explains; probabilities @ v >= v_point - (gap + error) * G_ii.
    """

    gap: float
    error: float
    weights: Array
    probabilities: Array
    task_weights: Array
    v: Array


def reachability_gap(v: Any, G: Any, rank: int) -> float:
    """Return max over the simplex of l'v~ - h_q(l), the depth of a point below the hull.

    v~_i = v_i / G_ii and h_q are taken at unit diagonal, so the gap is a share of what can be
    explained of each task: mixing scalarization optima explains -gap * G_ii more of every task i
    than v, which lowers its MSE by -gap * G_ii / n. Never positive for v of a rank-q model; 0 (to
    1e-6) iff v is a scalarization optimum. A dominated point has a negative gap too.

    Parameters
    ----------
    v : (K,)
        v_i = |P yhat_i|^2 in the units of G.
    G : (K, K)
        Yhat'Yhat, singular or not; tasks with G_ii = 0 are left out.
    rank : int
        q, from 1 to K.

    Raises
    ------
    ValueError
        For a rank, matrix or point that is not allowed.
    """
    return reachability(v, G, rank).gap


def reachability(v: Any, G: Any, rank: int) -> Reach:
    """Return the gap of a point with the mixture of at most K optima that lies above it.

    By cutting planes: each round adds the scalarization optimum of one l, and the programme
    max_{l, e} l'v~ - e with e >= l'v_j has the mixture as its dual solution. Parameters and errors
    as :func:`reachability_gap`.
    """
    gram = as_gram(G)
    q = check_rank(rank, len(gram.matrix))
    point = _point(v, len(gram.matrix))
    found = unit_reach(gram.units_of(point), gram.unit, q)
    gap, error, lam, p, members, cuts = found
    full = np.zeros((len(p), len(gram.matrix)))
    full[:, gram.tasks] = members / gram.scale
    full /= full.sum(axis=1, keepdims=True)
    weights = np.zeros(len(gram.matrix))
    weights[gram.tasks] = lam
    return Reach(gap, error, weights, p, full, np.array([gram.back(c) for c in cuts]))


def unit_reach(v: Array, unit: Array, rank: int) -> tuple[float, float, Array, Array, Array, Array]:
    """Return (gap, error, l, probabilities, members' l, members' v) at unit diagonal."""
    k = len(unit)
    asked: list[Array] = []
    cuts: list[Array] = []

    def value(lam: Array) -> float:
        optimum = scalarization_optimum(lam, unit, rank)
        asked.append(lam)
        cuts.append(optimum.v)
        return float(lam @ v) - optimum.value

    best = np.full(k, 1 / k)
    lower = value(best)
    for i in range(k if k > 1 else 0):  # inside: at a vertex other tasks' v is not determined
        lam = np.full(k, 1e-6)
        lam[i] = 1 - 1e-6 * (k - 1)
        now = value(lam)
        if now > lower:
            best, lower = lam, now
    upper, at, p = float(v.max()), best, np.zeros(0)
    for _ in range(ROUNDS):
        solved = _programme(v, np.array(cuts))
        if solved is None:  # cuts too alike for the solver: the last bounds stand
            break
        upper, at, p = solved
        if upper - lower <= TOL or k == 1:
            break
        before = len(asked)
        for share in (0.5, 0.0):  # half-way to the best so far is steadier, the end is a bound
            lam = share * best + (1 - share) * at
            now = value(lam)
            if now > lower:
                best, lower = lam, now
        if upper - lower <= TOL or len(asked) == before:
            break
    p = np.pad(p, (0, len(cuts) - len(p))) if p.any() else np.eye(len(cuts))[0]
    kept = np.flatnonzero(p > 1e-9)
    p = p[kept] / p[kept].sum()
    members, points = np.array(asked)[kept], np.array(cuts)[kept]
    return lower, max(upper - lower, 0.0), best, p, members, points


def _programme(v: Array, cuts: Array) -> tuple[float, Array, Array] | None:
    """Return max_{l in simplex} l'v - max_j l'cuts_j, its l (K,), and the dual's p (m,)."""
    m, k = cuts.shape
    for tolerance in (1e-10, 1e-8):
        found = linprog(
            np.append(-v, 1.0),
            A_ub=np.column_stack([cuts, -np.ones(m)]),
            b_ub=np.zeros(m),
            A_eq=np.append(np.ones(k), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * k + [(None, None)],
            method="highs-ds",  # a vertex: at most K members in the mixture
            options={
                "primal_feasibility_tolerance": tolerance,
                "dual_feasibility_tolerance": tolerance,
            },
        )
        if found.x is not None:
            break
    else:
        return None
    lam = np.clip(found.x[:k], 0, None)
    p = np.clip(-found.ineqlin.marginals, 0, None)
    return float(-found.fun), np.asarray(lam / lam.sum()), np.asarray(p)


def _point(v: Any, n_tasks: int) -> Array:
    point = np.array(v, dtype=np.float64)
    if point.shape != (n_tasks,) or not np.isfinite(point).all():
        raise ValueError(
            f"v has shape {point.shape} and must be {n_tasks} finite numbers, one a task: "
            "what the model explains of each, in the units of G"
        )
    return point
