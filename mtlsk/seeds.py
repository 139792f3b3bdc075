"""Fronts over seeds: the hypervolume of each seed with its spread, and what half the seeds attain.

Which trials a front consists of was decided once, on means over the seeds; here each seed gives
these same trials the test values that it came to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import moocore
import numpy as np
import pandas as pd
from scipy.stats import t as student

from mtlsk.outcome import Results
from mtlsk.pareto import Mask, Values, measure_fronts, non_dominated, undominated_by

LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over `n` seeds with the ends of its 95 % t-interval, nan for fewer than two seeds."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean_of(values: Values) -> Mean:
    """Return mean(x) -+ t_{0.975, n - 1} s / sqrt(n) of x, (n,)."""
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2:
        return Mean(float(x.mean()) if n else float("nan"), float("nan"), float("nan"), n)
    half = float(student.ppf(0.5 + LEVEL / 2, n - 1) * x.std(ddof=1) / np.sqrt(n))
    return Mean(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, n)


@dataclass(frozen=True, eq=False)
class Seeds:
    """Fronts over S >= 2 seeds.

    Attributes
    ----------
    points : dict
        Front -> list of S arrays (n, m), minimised test objectives, nan where a seed has none.
    hypervolumes : dict
        Front -> (S,), in the box that the points of all fronts and seeds span together.
    """

    points: dict[str, list[Values]]
    hypervolumes: dict[str, Values]

    def undominated(self, front: str, other: str) -> Mask:
        """Mark the points of a front that no point of another one dominates in any seed, (n,)."""
        pairs = zip(self.points[front], self.points[other], strict=True)
        masks = []
        for a, b in pairs:
            there = np.isfinite(a).all(axis=1)
            mask = np.zeros(len(a), dtype=np.bool_)
            mask[there] = undominated_by(a[there], _finite(b))
            masks.append(mask)
        every: Mask = np.all(masks, axis=0)
        return every

    def difference(self, front: str, other: str) -> Mean:
        """Return the paired difference of two fronts' hypervolumes over the seeds."""
        return mean_of(self.hypervolumes[front] - self.hypervolumes[other])

    def median_attained(self, front: str) -> Values:
        """Return the corners of what at least half of the seeds attain, (p, m), for m <= 3.

        **Reference** Grunert da Fonseca, Fonseca, Hall: Inferential performance assessment of
        stochastic optimisers and the attainment function (EMO 2001).
        """
        sets = [_finite(points) for points in self.points[front]]
        m = sets[0].shape[1]
        if m not in (2, 3) or not all(len(s) for s in sets):
            return np.empty((0, m))
        which = np.repeat(np.arange(1, len(sets) + 1), [len(s) for s in sets])
        surface = moocore.eaf(np.concatenate(sets), which, percentiles=[50])[:, :m]
        surface = surface[non_dominated(surface)]
        return np.asarray(surface[np.argsort(surface[:, 0])])


def _finite(points: Values) -> Values:
    return points[np.isfinite(points).all(axis=1)]


def over_seeds(results: Results, fronts: Mapping[str, pd.DataFrame]) -> Seeds | None:
    """Return the fronts over the seeds, None for one seed.

    Raises
    ------
    ValueError
        If the repeats lack a column of objectives.
    """
    table = results.repeats
    if table is None or results.n_repeats < 2 or table.empty:
        return None
    columns = results.columns("test")
    missing = [c for c in columns if c not in table]
    if missing:
        raise ValueError(f"repeats has no column {missing[0]!r}; give it the columns of trials")
    numbers = sorted(table["repeat"].unique())
    if len(numbers) < 2:
        return None
    sign = np.where(results.maximise, -1.0, 1.0)
    points = {
        study: [
            table[(table["study"] == study) & (table["repeat"] == repeat)]
            .drop_duplicates("number")
            .set_index("number")
            .reindex(rows["number"])[columns]
            .to_numpy(dtype=np.float64)
            * sign
            for repeat in numbers
        ]
        for study, rows in fronts.items()
    }
    flat = {
        f"{study}/{i}": _finite(p) for study, sets in points.items() for i, p in enumerate(sets)
    }
    measured = measure_fronts(flat)
    volumes = {
        study: np.array([measured[f"{study}/{i}"].hypervolume for i in range(len(numbers))])
        for study in points
    }
    return Seeds(points, volumes)
