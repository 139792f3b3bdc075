"""Pareto fronts in objectives that are all minimised: dominance, indicators, comparison of two."""

from __future__ import annotations

from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Comparison",
    "FrontIndicators",
    "compare_fronts",
    "dominating",
    "hypervolume",
    "igd_plus",
    "non_dominated",
    "undominated_by",
]

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

# The reference point lies a tenth of the box beyond its worst corner, so that the extreme points
# of a front still enclose some volume.
REFERENCE = 1.1
TIE = 0.01


def _points(values: ArrayLike, name: str = "values") -> Values:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {points.shape}: pass one row a point and one column an objective, "
            "(n, m) with m >= 1."
        )
    if not np.isfinite(points).all():
        raise ValueError(f"{name} has values that are not finite: leave out such points first.")
    return points


def _two(first: ArrayLike, second: ArrayLike, names: tuple[str, str]) -> tuple[Values, Values]:
    a, b = _points(first, names[0]), _points(second, names[1])
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} has {a.shape[1]} objectives and {names[1]} {b.shape[1]}: they must agree."
        )
    return a, b


def non_dominated(values: ArrayLike) -> Mask:
    """Mark the points that no other point dominates; of equal points only the first is kept.

    x dominates y iff x_j <= y_j for every j and x_j < y_j for some j.

    Parameters
    ----------
    values : (n, m)
        One row a point, every objective minimised; n may be 0.

    Returns
    -------
    (n,) booleans.

    Raises
    ------
    ValueError
        If `values` is no (n, m) array of finite numbers.
    """
    mask: Mask = np.asarray(moocore.is_nondominated(_points(values)), dtype=np.bool_)
    return mask


def undominated_by(values: ArrayLike, others: ArrayLike) -> Mask:
    """Mark the points of `values` that no point of `others` dominates.

    y dominates x iff y_j <= x_j for every j and y_j < x_j for some j. So a point that *equals* one
    of `others` stays marked (unless a third one dominates it), and points of `values` never count
    against each other. With `others` empty every point is marked.

    Parameters
    ----------
    values : (n, m)
    others : (k, m)
        Every objective minimised.

    Returns
    -------
    (n,) booleans.

    Raises
    ------
    ValueError
        If either is no array of finite numbers, or the m differ.
    """
    x, y = _two(values, others, ("values", "others"))
    no_worse = np.all(y[None] <= x[:, None], axis=2)  # (n, k)
    better = np.any(y[None] < x[:, None], axis=2)
    mask: Mask = ~np.any(no_worse & better, axis=1)
    return mask


def dominating(point: ArrayLike, others: ArrayLike) -> int:
    """Count the points of `others` (k, m) that dominate one point (m,), all minimised."""
    x, y = _two(np.atleast_2d(np.asarray(point)), others, ("point", "others"))
    return int((np.all(y <= x, axis=1) & np.any(y < x, axis=1)).sum())


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """Volume of {z : x <= z <= reference for some point x}: larger is better, 0 without points.

    Exact for every m; the time grows steeply with m (40 points: 0.1 ms at m = 5, 1 s at m = 10).

    Parameters
    ----------
    values : (n, m)
        Every objective minimised. Points that are not better than `reference` everywhere add 0.
    reference : (m,)

    Raises
    ------
    ValueError
        If `values` is no (n, m) array of finite numbers or `reference` no (m,) one.
    """
    points, ref = _two(values, np.atleast_2d(np.asarray(reference)), ("values", "reference"))
    if len(ref) != 1:
        raise ValueError(f"reference has {len(ref)} rows: pass one point, (m,).")
    return float(moocore.hypervolume(points, ref=ref[0])) if len(points) else 0.0


def igd_plus(values: ArrayLike, reference_front: ArrayLike) -> float:
    """Mean distance from a reference front R to the points, counting only where they are worse.

    IGD+ = 1/|R| sum_{r in R} min_x |max(x - r, 0)|_2: lower is better, nan without points.

    **Reference** Ishibuchi, Masuda, Tanigaki, Nojima: Modified distance calculation in
    generational distance and inverted generational distance (EMO 2015), Section 3.

    Parameters
    ----------
    values : (n, m)
        Every objective minimised.
    reference_front : (k, m)

    Raises
    ------
    ValueError
        If either is no array of finite numbers, or the m differ.
    """
    points, front = _two(values, reference_front, ("values", "reference_front"))
    if not len(points) or not len(front):  # moocore would call an empty set perfect
        return float("nan")
    return float(moocore.igd_plus(points, ref=front))


@dataclass(frozen=True, eq=False)
class FrontIndicators:
    """One front of a comparison: its points and what was measured on them.

    `points` (n, m) in the caller's units; `hypervolume` (higher is better) and `igd_plus` (lower is
    better) in normalised units; `undominated` (n,) marks the points that no point of the other
    front dominates.
    """

    points: Values
    hypervolume: float
    igd_plus: float
    undominated: Mask


@dataclass(frozen=True, eq=False)
class Comparison:
    """A searched front against the front of tuned scalarization, as `compare_fronts` makes it."""

    search: FrontIndicators
    scalarization: FrontIndicators

    def verdict(self) -> str:
        """Say in plain sentences which front is better and by how much (relative to the smaller).

        A tie is a hypervolume that differs by at most 1 %, or two fronts of which every point lies
        within 1 % of every other in each objective: the normalisation stretches any difference
        over the unit box, and there it would look large. For the same reason two fronts of one
        point each (always so with one objective) are compared by their values: the normalised
        hypervolume of the better is then 1.1^m against 0.1^m however little they differ. Nothing
        is said about spread: one front each knows none.
        """
        n, k = len(self.search.points), len(self.scalarization.points)
        if not n or not k:
            empty = [name for name, size in (("the search", n), ("scalarization", k)) if not size]
            return f"Nothing can be compared: {' and '.join(empty)} gave no point."
        if self.search.points.shape[1] == 1 or n == k == 1:
            return self._single_points()
        a, b = int(self.search.undominated.sum()), int(self.scalarization.undominated.sum())
        return (
            f"{self._hypervolume_sentence()} Of the searched front {_of(a, n)} "
            f"dominated by no scalarization point, of scalarization's front {_of(b, k)} dominated "
            "by no searched point."
        )

    def _hypervolume_sentence(self) -> str:
        a, b = self.search.hypervolume, self.scalarization.hypervolume
        union = np.concatenate([self.search.points, self.scalarization.points])
        if (np.ptp(union, axis=0) <= TIE * np.abs(union).max(axis=0)).all():
            return "A tie: all points of both fronts lie within 1 % in every objective."
        larger, smaller = max(a, b), min(a, b)
        excess = (larger - smaller) / smaller  # smaller >= 0.1^m: the box holds every point
        if excess <= TIE:
            return (
                f"A tie: the hypervolumes differ by {100 * excess:.2g} %, at most 1 % "
                f"(search {a:.4g}, scalarization {b:.4g})."
            )
        by = f"{100 * excess:.3g} % larger"
        if excess >= 1:
            gap = 100 * np.abs(self._gains()).max()
            by = f"{larger / smaller:.3g} times; best values differ by at most {gap:.3g} %"
        winner = "The search wins: the searched" if a > b else "Scalarization wins: its"
        loser = "scalarization's" if a > b else "the searched front's"
        return (
            f"{winner} front has the larger hypervolume, {larger:.4g} against {loser} "
            f"{smaller:.4g} ({by})."
        )

    def _gains(self) -> Values:
        """How much better the best searched value is in each objective, as a share of the larger.

        (m,), negative where scalarization's best is better.
        """
        a, b = self.search.points.min(axis=0), self.scalarization.points.min(axis=0)
        larger = np.maximum(np.abs(a), np.abs(b))
        gains: Values = (b - a) / np.where(larger > 0, larger, 1.0)
        return gains

    def _single_points(self) -> str:
        gains = self._gains()
        if (np.abs(gains) <= TIE).all():
            winner = "A tie"
        elif (gains >= 0).all():
            winner = "The search wins"
        elif (gains <= 0).all():
            winner = "Scalarization wins"
        else:
            winner = "Neither wins"
        said = (
            f"{100 * abs(g):.3g} % {'worse' if g < 0 else 'better'}" if g else "equal"
            for g in gains
        )
        return (
            f"{winner}: each front comes down to one point, and by objective the searched one is "
            f"{', '.join(said)}."
        )


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} point{'' if whole == 1 else 's'} {'is' if part == 1 else 'are'}"


def compare_fronts(search: ArrayLike, scalarization: ArrayLike) -> Comparison:
    """Measure two fronts on one scale: z = (x - ideal) / (nadir - ideal), reference point 1.1.

    Ideal and nadir are the best and the worst value that any point of either front takes in each
    objective (an objective in which all agree keeps its unit), so every point lies in the box and
    adds volume. The reference front of IGD+ is the non-dominated part of the union.

    Parameters
    ----------
    search : (n, m)
    scalarization : (k, m)
        The points of each front, every objective minimised. Either may be empty, as (0, m): its
        hypervolume is then 0 and its IGD+ nan.

    Raises
    ------
    ValueError
        If either is no array of finite numbers, or the m differ.
    """
    a, b = _two(search, scalarization, ("search", "scalarization"))
    union = np.concatenate([a, b])
    if len(union):
        ideal, nadir = union.min(axis=0), union.max(axis=0)
        span = np.where(nadir > ideal, nadir - ideal, 1.0)
    else:
        ideal, span = np.zeros(a.shape[1]), np.ones(a.shape[1])
    best = (union[non_dominated(union)] - ideal) / span
    reference = np.full(a.shape[1], REFERENCE)

    def measure(points: Values, others: Values) -> FrontIndicators:
        z = (points - ideal) / span
        return FrontIndicators(
            points=points,
            hypervolume=hypervolume(z, reference),
            igd_plus=igd_plus(z, best),
            undominated=undominated_by(points, others),
        )

    return Comparison(search=measure(a, b), scalarization=measure(b, a))
