"""Whether scalarization can reach every trade-off of linear multi-task models of rank q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtlsk.linear_mtl.climb import undominated
from mtlsk.linear_mtl.fit import fit_linear
from mtlsk.linear_mtl.flips import Signs, sign_flips
from mtlsk.linear_mtl.gram import Array, Gram, as_gram, check_rank
from mtlsk.linear_mtl.highest import highest
from mtlsk.linear_mtl.reach import unit_reach

TOL = 1e-10
"""Off-diagonals of the unit-diagonal matrix smaller than this count as zero."""

DEEP = 1e-4
"""Depth below the hull, as a share of G_ii, from which the search calls a model missed."""


@dataclass(frozen=True, eq=False)
class Exploration:
    """What was found out about the limits of scalarization.

    Attributes
    ----------
    explorable : bool or None
        Whether task weights >= 0 reach every Pareto-optimal rank-q model; None: not known.
    proved : bool
        Whether a theorem says so. A search proves nothing: what it finds is a point that local
        searches did not better, and finding nothing says nothing.
    method : str
        "full rank", "theorem, q = 1", "theorem, q = K - 1" or "search".
    flips : (K,) of +1 and -1, or None
        Signs of the tasks that make the theorem's matrix non-negative, where there are any.
    cycle : tuple of task indices or None
        A cycle with an odd number of negative entries, first task repeated: there are no signs.
    missed : (K,) or None
        v of a model that scalarization cannot reach, found by the search, in the units of G.
    gap : float or None
        Its depth below the hull, as :func:`reachability_gap`.
    directions : int
        How many directions were searched.
    """

    explorable: bool | None
    proved: bool
    method: str
    flips: Signs | None = None
    cycle: tuple[int, ...] | None = None
    missed: Array | None = None
    gap: float | None = None
    directions: int = 0

    def __str__(self) -> str:
        if self.method == "full rank":
            return "Scalarization reaches everything: the rank suffices for all tasks at once."
        if self.method != "search":
            matrix = "G" if self.method.endswith("q = 1") else "the inverse of G"
            if self.flips is not None:
                signs = " ".join("+" if s > 0 else "-" for s in self.flips)
                return (
                    f"Scalarization reaches everything (theorem): with the signs {signs} "
                    f"{matrix} has no negative entry."
                )
            cycle = " - ".join(str(i + 1) for i in self.cycle or ())
            return (
                "Scalarization does not reach everything (theorem): an odd number of the entries "
                f"of {matrix} along the tasks {cycle} is negative."
            )
        if self.missed is not None:
            return (
                f"Scalarization does not seem to reach everything: a search found a model {-self.gap:.4f} below "  # type: ignore[operator]  # noqa: E501
                "the hull that no local search bettered (no proof)."
            )
        return (
            f"Not known: a search in {self.directions} directions found no model that "
            "scalarization misses, which is no proof."
        )


def exploration_test(
    X: Any,
    Y: Any,
    rank: int,
    *,
    fit_intercept: bool = True,
    directions: int = 20,
    random_state: int = 0,
) -> Exploration:
    """Say whether linear scalarization can reach every rank-q linear model of these tasks.

    The test is on G = Yhat'Yhat, Yhat the least squares fit: see :func:`exploration_test_gram`.

    Parameters
    ----------
    X : (n, d)
    Y : (n, K)
        Without NaN: G needs every label.
    rank : int
        q, from 1 to K.
    fit_intercept : bool
        Centre X and Y, as :class:`mtlsk.ReducedRankRegressor` does.
    directions, random_state : int
        Of the search.

    Raises
    ------
    ValueError
        For a rank, X or Y that is not allowed.
    """
    fit = fit_linear(X, Y, fit_intercept=fit_intercept)
    return exploration_test_gram(fit.G, rank, directions=directions, random_state=random_state)


def exploration_test_gram(
    G: Any, rank: int, *, tol: float = TOL, directions: int = 20, random_state: int = 0
) -> Exploration:
    """Say whether scalarization reaches every rank-q model, from G = Yhat'Yhat (K, K).

    - q >= rank(G): one model is best for all tasks.
    - q = 1: iff signs s make s_i s_j G_ij >= 0; q = K - 1: iff they do so for G^{-1} (theorem). A
      singular G fulfils q = 1's condition by continuity; where it fails it, the search decides.
    - any other q: a search, in each direction for a model that no other seems to dominate and that
      lies below the hull.

    Tasks with G_ii = 0 are left out first: K is the number of the others.

    Parameters
    ----------
    G : (K, K)
    rank : int
        q, from 1 to K.
    tol : float
        Entries of the unit-diagonal matrix smaller than that count as zero.
    directions, random_state : int
        Of the search: balanced first, then drawn from the simplex.

    Raises
    ------
    ValueError
        For a rank or matrix that is not allowed.

    **Reference** arXiv 2308.13985 (Hu et al. 2023), theorems on q = k - 1 and q = 1.
    """
    gram = as_gram(G)
    q = check_rank(rank, len(gram.matrix))
    k = len(gram.tasks)
    if q >= gram.rank:
        return Exploration(True, True, "full rank")
    regular = gram.rank == k
    if q == 1:
        found = _by_theorem(gram, gram.unit, tol, "theorem, q = 1")
        if regular or found.explorable:
            return found
    if q == k - 1:  # regular, or q would be the rank
        inverse = np.linalg.inv(gram.unit)
        roots = np.sqrt(inverse.diagonal())
        # the inverse of a nearly singular matrix has rounding in the zeros of its entries
        bar = max(tol, np.finfo(np.float64).eps * k * float(np.linalg.cond(gram.unit)))
        return _by_theorem(gram, inverse / np.outer(roots, roots), bar, "theorem, q = K - 1")
    return _search(gram, q, directions, random_state)


def _by_theorem(gram: Gram, matrix: Array, tol: float, method: str) -> Exploration:
    signs, cycle = sign_flips(matrix, tol)
    if signs is not None:
        flips = np.ones(len(gram.matrix), dtype=np.int64)
        flips[gram.tasks] = signs
        return Exploration(True, True, method, flips=flips)
    assert cycle is not None
    return Exploration(False, True, method, cycle=tuple(int(gram.tasks[i]) for i in cycle))


def _search(gram: Gram, rank: int, directions: int, random_state: int) -> Exploration:
    """Look, in each direction, for a model below the hull that local searches do not better."""
    k, rng = len(gram.tasks), np.random.default_rng(random_state)
    for d in range(directions):
        share = np.full(k, 1 / k) if d == 0 else rng.dirichlet(np.ones(k))
        v, _ = highest(gram.factor, rank, 1 - share, 4, random_state + d)
        gap = unit_reach(v, gram.unit, rank)[0]
        if gap > -DEEP:
            continue
        v = undominated(v, gram.factor, rank, random_state + d)
        gap = unit_reach(v, gram.unit, rank)[0]
        if gap <= -DEEP:
            missed = gram.back(v)
            return Exploration(False, False, "search", missed=missed, gap=gap, directions=d + 1)
    return Exploration(None, False, "search", directions=directions)
