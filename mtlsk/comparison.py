"""What a study's trials come to: its fronts, measured and set against each other.

Each front is chosen on the validation objectives and judged on the test objectives, which no trial
has seen: indicators, masks and the verdict are test values throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mtlsk.outcome import EQUAL_WEIGHTS, SCALARIZATION, SEARCH, SINGLE_TASK, Results
from mtlsk.pareto import FrontIndicators, Values, measure_fronts, non_dominated
from mtlsk.seeds import Seeds, over_seeds
from mtlsk.verdict import Comparison, against

FRONTS = (SEARCH, SCALARIZATION, EQUAL_WEIGHTS)
RIVAL = {SEARCH: SCALARIZATION, SCALARIZATION: SEARCH, EQUAL_WEIGHTS: SEARCH}
"""Whose points `undominated` is about."""

UNDOMINATED, EVERY_SEED, DELTA_M = "undominated", "undominated in every seed", "delta_m"
NAMED = 12


@dataclass(frozen=True, eq=False)
class Fronts:
    """The fronts of a study and what was measured on them.

    Attributes
    ----------
    rows : dict
        Study -> its front: rows of ``Results.trials``, best in the first test objective first,
        with the columns `undominated` (by any point of the rival's front), `undominated in every
        seed` (with several seeds) and `delta_m` (with a single-task baseline).
    indicators : dict
        Study -> indicators of its front on test.
    base : dict
        Task -> test loss of the best single-task net; empty without such a baseline.
    seeds : Seeds or None
    compared : Comparison or None
        None where the search or the scalarization has no point.
    """

    rows: dict[str, pd.DataFrame]
    indicators: dict[str, FrontIndicators]
    base: dict[str, float]
    seeds: Seeds | None
    compared: Comparison | None

    def table(self) -> pd.DataFrame:
        """Return the fronts one below the other."""
        return pd.concat(list(self.rows.values()))


def present(results: Results) -> list[str]:
    """Return the studies that have a front here, "search" first."""
    there = set(results.wanted) | set(results.trials["study"]) | {SEARCH}
    return [study for study in FRONTS if study in there]


def compare(results: Results) -> Fronts:
    """Choose the fronts of a study on validation and measure them on test."""
    rows = {study: _front(results, study) for study in present(results)}
    indicators = measure_fronts({s: results.minimised(r, "test") for s, r in rows.items()})
    seeds = over_seeds(results, rows)
    compared = None
    if all(study in rows and len(rows[study]) for study in (SEARCH, SCALARIZATION)):
        said = spread(seeds) if seeds is not None else ""
        decided = seeds is None or tells(seeds, indicators)
        compared = against(indicators[SEARCH], indicators[SCALARIZATION], said, decided=decided)
    base = single_task_losses(results)
    for study, front in rows.items():
        rival = RIVAL[study]
        if rival in rows:
            there = against(indicators[study], indicators[rival])
            front[UNDOMINATED] = there.undominated[0]
            if seeds is not None:
                front[EVERY_SEED] = seeds.undominated(study, rival)
        else:
            front[UNDOMINATED] = True
        if base:
            front[DELTA_M] = delta_m(results, front, base)
    return Fronts(rows, indicators, base, seeds, compared)


def _front(results: Results, study: str) -> pd.DataFrame:
    rows = results.usable(study)
    rows = rows[non_dominated(results.minimised(rows, "validation"))]
    order = np.argsort(results.minimised(rows, "test")[:, 0], kind="stable")
    return rows.iloc[order].copy()


def single_task_losses(results: Results) -> dict[str, float]:
    """Return for each task the test loss of the single-task trial that is best on validation.

    Empty unless every task has one, finite and above 0.
    """
    rows = results.of(SINGLE_TASK, "COMPLETE")
    base = {}
    for task in results.task_names:
        names = [f"validation loss: {task}", f"test loss: {task}"]
        if not set(names) <= set(rows):
            return {}
        both = rows[names].to_numpy(dtype=np.float64)
        both = both[np.isfinite(both).all(axis=1)]
        if not len(both):
            return {}
        base[task] = float(both[both[:, 0].argmin(), 1])
    return base if all(loss > 0 for loss in base.values()) else {}


def delta_m(results: Results, rows: pd.DataFrame, base: dict[str, float]) -> Values:
    """Mean change of the test losses against single-task nets, in percent: lower is better, (n,).

    Delta_m = 100 / K sum_k (L_k - B_k) / B_k, with L the trial's test losses and B the base; the
    multi-task convention for losses.

    **Reference** Maninis, Radosavovic, Kokkinos: Attentive single-tasking of multiple tasks (CVPR
    2019), Section 5.
    """
    columns = [f"test loss: {task}" for task in base]
    if not set(columns) <= set(rows):
        return np.full(len(rows), np.nan)
    losses = rows[columns].to_numpy(dtype=np.float64)
    against_base = np.array(list(base.values()))
    change: Values = 100 * np.mean((losses - against_base) / against_base, axis=1)
    return change


def tells(seeds: Seeds, indicators: dict[str, FrontIndicators]) -> bool:
    """Say whether the interval over seeds leaves out 0, on the side of the front that is ahead."""
    found = seeds.difference(SEARCH, SCALARIZATION)
    search, scalarization = (indicators[s].hypervolume for s in (SEARCH, SCALARIZATION))
    return found.low > 0 if search > scalarization else found.high < 0


def spread(seeds: Seeds) -> str:
    """Say what seeds tell of the difference between the search and the scalarization."""
    found = seeds.difference(SEARCH, SCALARIZATION)
    if found.low > 0:
        means = "the search's lead is larger than the spread between seeds"
    elif found.high < 0:
        means = "scalarization's lead is larger than the spread between seeds"
    else:
        means = "the interval holds 0, so these seeds do not tell which of the two is better"
    return (
        f"Over {found.n} seeds the hypervolume of the search minus that of scalarization is "
        f"{found.value:.3g} on average, 95 % t-interval [{found.low:.3g}, {found.high:.3g}]: "
        f"{means}."
    )


def verdict(results: Results, fronts: Fronts) -> tuple[list[str], list[str]]:
    """Say what came out: the sentences of the verdict, and points to add to it."""
    compared = fronts.compared
    if compared is None:
        return [_no_comparison(fronts)], _changes(fronts)
    seed = (
        f", with one seed ({results.seed}): it says nothing about the spread between seeds"
        if fronts.seeds is None
        else ""
    )
    said = [*compared.sentences(), f"All of this is on the test part{seed}."]
    return said, [_named(SEARCH, fronts), _named(SCALARIZATION, fronts), *_changes(fronts)]


def _changes(fronts: Fronts) -> list[str]:
    if not fronts.base:
        return []
    best = [
        f"{study.replace('_', ' ')} {rows[DELTA_M].min():+.3g} %"
        for study, rows in fronts.rows.items()
        if len(rows) and np.isfinite(rows[DELTA_M]).any()
    ]
    return [
        "Mean change of the test losses against single-task nets, the best point of each front "
        f"on test (lower is better): {', '.join(best) or 'no point has losses'}."
    ]


def _no_comparison(fronts: Fronts) -> str:
    if SCALARIZATION not in fronts.rows:
        return "No comparison: this study has no scalarization baseline."
    empty = [s for s in (SEARCH, SCALARIZATION) if not len(fronts.rows[s])]
    return f"No comparison: {' and '.join(empty)} gave no complete trial with finite objectives."


def _named(study: str, fronts: Fronts) -> str:
    front = fronts.rows[study]
    whose = {
        SEARCH: "Searched trials that no scalarization point dominates",
        SCALARIZATION: "Scalarization's trials that no searched point dominates",
    }
    text = f"{whose[study]}: {_numbers(front[front[UNDOMINATED]])}"
    if fronts.seeds is not None:
        text += f"; in every seed: {_numbers(front[front[EVERY_SEED]])}"
    return f"{text}."


def _numbers(rows: pd.DataFrame) -> str:
    numbers = [str(int(n)) for n in rows["number"]]
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return ", ".join(numbers[:NAMED]) + more if numbers else "none"
