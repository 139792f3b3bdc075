"""Which searched parameters mattered for an objective, over the trials of the search."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mtlsk.outcome import SEARCH, Results
from mtlsk.pareto import Values

QUANTILE = 0.1
LEAST, MOST = 20, 2000
"""Trials that importances are computed of: with fewer a tenth is one trial; more add time only."""


optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True, eq=False)
class Importance:
    """Shares of the searched parameters in reaching the best tenth of trials.

    Attributes
    ----------
    shares : DataFrame
        Parameter x objective, each column sums to 1 (or is 0); the most important on average first.
    trials : dict
        Parameter -> trials that have it: one that belongs to a component has only that
        component's trials.
    n_trials : int
        Trials that were looked at.
    n_complete : int
        Complete trials of the search.
    """

    shares: pd.DataFrame
    trials: dict[str, int]
    n_trials: int
    n_complete: int


def importance(results: Results) -> Importance | None:
    """Return the importances by conditional PED-ANOVA on validation; None for too few trials.

    A parameter that only some trials have counts in the regime in which it is there, weighted by
    the share of the best trials and of all trials in it.

    **Reference** Watanabe, Bansal, Hutter: PED-ANOVA (IJCAI 2023), as Optuna computes it.
    """
    complete = results.usable(SEARCH)
    rows = complete
    if len(rows) > MOST:
        rows = rows.iloc[np.linspace(0, len(rows) - 1, MOST).astype(int)]
    every = [str(c) for c in rows if str(c).startswith("param: ")]
    columns = [c for c in every if rows[c].nunique() > 1]
    if len(rows) < LEAST or not columns:
        return None
    study, values = _as_study(rows, columns, results.minimised(rows, "validation"))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=QUANTILE)
    found = {}
    for i, objective in enumerate(results.objectives):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that low targets are best is what we want
            raw = evaluator.evaluate(study, target=lambda t, i=i: values[t.number, i])  # type: ignore[misc]
        total = sum(raw.values())
        found[objective] = {k: v / total if total > 0 else 0.0 for k, v in raw.items()}
    shares = pd.DataFrame(found).fillna(0.0)
    shares = shares.loc[shares.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    names = [c.removeprefix("param: ") for c in columns]
    counts = {n: int(rows[c].notna().sum()) for n, c in zip(names, columns, strict=True)}
    return Importance(shares, counts, len(rows), len(complete))


def _as_study(
    rows: pd.DataFrame, columns: list[str], values: Values
) -> tuple[optuna.Study, Values]:
    """Return the trials as Optuna knows them, with domains as wide as what was tried."""
    domains = {c.removeprefix("param: "): _domain(rows[c]) for c in columns}
    trials = []
    for record in rows[columns].to_dict("records"):
        there = {str(c).removeprefix("param: "): v for c, v in record.items() if not pd.isna(v)}
        params = {k: _value(domains[k], v) for k, v in there.items()}
        trials.append(
            optuna.trial.create_trial(
                value=0.0, params=params, distributions={k: domains[k] for k in params}
            )
        )
    study = optuna.create_study()
    study.add_trials(trials)
    return study, values


def _domain(column: pd.Series[Any]) -> BaseDistribution:
    tried = column.dropna()
    numeric = pd.to_numeric(tried, errors="coerce")
    words = tried.map(lambda v: isinstance(v, str | bool | np.bool_)).any()
    if words or numeric.isna().any() or not np.isfinite(numeric).all():
        return CategoricalDistribution(sorted({str(v) for v in tried}))
    low, high = float(numeric.min()), float(numeric.max())
    log = low > 0 and high > 30 * low  # what spans decades was surely searched so
    if (numeric == numeric.round()).all():
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _value(domain: BaseDistribution, value: Any) -> Any:
    if isinstance(domain, CategoricalDistribution):
        return str(value)
    return int(value) if isinstance(domain, IntDistribution) else float(value)
