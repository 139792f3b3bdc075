"""The limits of linear scalarization on a table, as numbers and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mtlsk.datasets import load_table
from mtlsk.linear_mtl import (
    REACHED,
    Balanced,
    Exploration,
    LinearFit,
    Reach,
    balanced_solution,
    check_rank,
    exploration_test_gram,
    fit_linear,
    reachability,
)
from mtlsk.preparation import Preparation


@dataclass(frozen=True, eq=False)
class Limits:
    """What was found on a table: errors are mean squared, of targets with variance 1."""

    names: list[str]
    rank: int
    exploration: Exploration
    fit: LinearFit
    balanced: Balanced
    reach: Reach

    @property
    def missed(self) -> bool:
        """Whether the balanced model lies below the hull: no weights have it for their optimum."""
        return self.reach.gap < -REACHED

    def rows(self) -> list[tuple[str, float, float, float, float]]:
        """Return, a target each: name, mse of full rank, balanced, the mixture, its gain."""
        full = self.fit.mse(self.fit.G.diagonal()).tolist()
        balanced = self.fit.mse(self.balanced.v).tolist()
        mixed = self.fit.mse(self.reach.probabilities @ self.reach.v).tolist()
        columns = zip(self.names, full, balanced, mixed, strict=True)
        return [(name, f, b, m, b - m) for name, f, b, m in columns]

    def sentence(self) -> str:
        """Return the answer in one sentence, with the targets' names."""
        text = str(self.exploration)
        if self.exploration.cycle is None:
            return text
        way = " - ".join(self.names[i] for i in self.exploration.cycle)
        numbers = " - ".join(str(i + 1) for i in self.exploration.cycle)
        return text.replace(numbers, way)

    def explanation(self) -> str:
        """Return what the columns of the errors mean here."""
        how = "exact" if self.balanced.exact else "the best that a local search found"
        lines = [f"balanced: the rank-{self.rank} model with the smallest largest mse ({how})"]
        if self.missed:
            lines += [
                "no task weights give it: it lies below the hull of all models, by "
                f"{-self.reach.gap:.4f} of what can be explained of each target",
                f"mixture: drawing one of {len(self.reach.probabilities)} weighted models for each "
                "prediction is better on every target at once, by the gain",
            ]
        else:
            lines.append("task weights give it: no mixture is better on every target at once")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        found, reach = self.exploration, self.reach
        cycle = None if found.cycle is None else [self.names[i] for i in found.cycle]
        signs = None if found.flips is None else dict(zip(self.names, found.flips, strict=True))
        keys = ("full_rank", "balanced", "mixture", "gain")
        return {
            "rank": self.rank,
            "rows": self.fit.n,
            "explorable": found.explorable,
            "proved": found.proved,
            "method": found.method,
            "flips": signs,
            "cycle": cycle,
            "balanced_exact": self.balanced.exact,
            "balanced_missed": self.missed,
            "gap": reach.gap,
            "mse": {name: dict(zip(keys, row, strict=True)) for name, *row in self.rows()},
            "mixture": [
                {"probability": p, "weights": dict(zip(self.names, w, strict=True))}
                for p, w in zip(reach.probabilities, reach.task_weights, strict=True)
            ],
        }


def prepared(
    path: str, targets: Sequence[str], drop: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return features and targets of a table, imputed, encoded and standardised.

    Raises
    ------
    ValueError, OSError or ImportError
        For a table that cannot be read, and a target with a missing label or one value only.
    """
    words = list(targets)
    last = len(words) == 1 and words[0].isdecimal()
    bunch = load_table(path, int(words[0]) if last else words, drop=list(drop))
    for name, column in bunch.target.items():
        missing = column.isna()
        if missing.any():
            row = int(missing.to_numpy().argmax()) + 1
            raise ValueError(
                f"target {name!r} lacks {int(missing.sum())} labels (the first in row {row}); "
                "the Gram matrix needs every label: leave out those rows or the target"
            )
        if column.nunique() == 1:
            raise ValueError(f"target {name!r} has one value in all rows; leave it out")
    values = bunch.target.to_numpy()
    ready = Preparation.fit(bunch.data, values, scale_X=True, scale_y=True)
    X = ready.features(bunch.data)
    return pd.DataFrame(X), pd.DataFrame(ready.targets(values), columns=bunch.target_names)


def limits_of_table(X: Any, Y: pd.DataFrame, rank: int, random_state: int = 0) -> Limits:
    """Return what scalarization can reach on features (n, d) and standardised targets (n, K)."""
    check_rank(rank, Y.shape[1])
    fit = fit_linear(X.to_numpy(), Y.to_numpy(), fit_intercept=True)
    balanced = balanced_solution(fit.G, rank, fit.squares, random_state=random_state)
    return Limits(
        names=[str(name) for name in Y],
        rank=rank,
        exploration=exploration_test_gram(fit.G, rank, random_state=random_state),
        fit=fit,
        balanced=balanced,
        reach=reachability(balanced.v, fit.G, rank),
    )
