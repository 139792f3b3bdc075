"""The searched front against scalarization's, in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mtlsk.pareto import FrontIndicators, Mask, Values, measure_fronts, undominated_by

__all__ = ["Comparison", "compare_fronts"]

TIE = 0.01


@dataclass(frozen=True, eq=False)
class Comparison:
    """A searched front against the front of tuned scalarization, as `compare_fronts` makes it.

    `undominated` marks the points of the one and of the other front, (n,) and (k,), that no point
    of the other dominates; `spread` is what is to be said about seeds, empty for one seed. Where
    several seeds do not tell which is better, `decided` is False and none is said to win.
    """

    search: FrontIndicators
    scalarization: FrontIndicators
    undominated: tuple[Mask, Mask]
    spread: str = ""
    decided: bool = True

    def verdict(self) -> str:
        """Say in plain sentences which front is better and by how much."""
        return " ".join(self.sentences())

    def sentences(self) -> list[str]:
        """Say in plain sentences which front is better and by how much (relative to the smaller).

        A tie is a hypervolume that differs by at most 1 %, or two fronts of which every point lies
        within 1 % of every other in each objective: the normalisation stretches any difference
        over the unit box, and there it would look large. For the same reason two fronts of one
        point each (always so with one objective) are compared by their values: the normalised
        hypervolume of the better is then 1.1^m against 0.1^m however little they differ.
        """
        n, k = len(self.search.points), len(self.scalarization.points)
        if not n or not k:
            empty = [name for name, size in (("the search", n), ("scalarization", k)) if not size]
            return [f"Nothing can be compared: {' and '.join(empty)} gave no point."]
        if self.search.points.shape[1] == 1 or n == k == 1:
            said = [self._single_points()]
        else:
            a, b = (int(mask.sum()) for mask in self.undominated)
            said = [
                self._hypervolume_sentence(),
                f"Of the searched front {_of(a, n)} dominated by no scalarization point, of "
                f"scalarization's front {_of(b, k)} dominated by no searched point.",
            ]
        return [*said, self.spread] if self.spread else said

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
        whose = "The search", "the searched"
        if a < b:
            whose = "Scalarization", "its"
        winner = f"{self._ahead(whose[0])}: {whose[1]}"
        loser = "scalarization's" if a > b else "the searched front's"
        return (
            f"{winner} front has the larger hypervolume, {larger:.4g} against {loser} "
            f"{smaller:.4g} ({by})."
        )

    def _ahead(self, name: str) -> str:
        return f"{name} wins" if self.decided else f"{name} is ahead, but not beyond the seeds"

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
            winner = self._ahead("The search")
        elif (gains <= 0).all():
            winner = self._ahead("Scalarization")
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
    """Measure two fronts on the scale that both span (see ``measure_fronts``).

    Parameters
    ----------
    search : (n, m)
    scalarization : (k, m)
        The points of each front, every objective minimised. Either may be empty, as (0, m).

    Raises
    ------
    ValueError
        If either is no array of finite numbers, or the m differ.
    """
    both = measure_fronts({"search": search, "scalarization": scalarization})
    return against(both["search"], both["scalarization"])


def against(
    search: FrontIndicators,
    scalarization: FrontIndicators,
    spread: str = "",
    *,
    decided: bool = True,
) -> Comparison:
    """Set one measured front against another."""
    a, b = search.points, scalarization.points
    undominated = (undominated_by(a, b), undominated_by(b, a))
    return Comparison(search, scalarization, undominated, spread, decided)
