"""What comes after a search: its front, and the trial on it that a preference asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtlsk import models
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.evaluation import model_of_trial
from mtlsk.outcome import SEARCH, Results
from mtlsk.pareto import REFERENCE, Values, measure_fronts, non_dominated
from mtlsk.problem import Problem
from mtlsk.studyfile import StudyError
from mtlsk.tablemodel import TableModel

RHO = 1e-3
"""Share of the weighted sum in the augmented Chebyshev value: it breaks ties."""


def front(results: Results, which: str = SEARCH) -> pd.DataFrame:
    """Return the complete trials of a study that no other one of it dominates on validation.

    Sorted by the first objective, the best first; as few as none.
    """
    rows = results.usable(which)
    values = results.minimised(rows, "validation")
    rows = rows[non_dominated(values)]
    order = np.argsort(results.minimised(rows, "validation")[:, 0], kind="stable")
    return rows.iloc[order].reset_index(drop=True)


def hypervolume_so_far(results: Results) -> float | None:
    """Return the hypervolume of the search's front on validation, None while it has no point.

    Of the box from the best value of each objective on any study's front so far to a tenth beyond
    the worst, as a share of that box: between 0 and 1.
    """
    studies = [SEARCH, *(w for w in results.wanted if w != SEARCH)]
    points = {w: results.minimised(front(results, w), "validation") for w in studies}
    if not len(points[SEARCH]):
        return None
    volume = measure_fronts(points)[SEARCH].hypervolume
    return float(volume / REFERENCE ** len(results.objectives))


def chebyshev(values: Values, weights: Values) -> Values:
    """Return the augmented weighted Chebyshev values (n,) of points (n, m): lower is better.

    s_i = max_j p_j z_ij + rho sum_j p_j z_ij, z = (x - ideal) / (nadir - ideal), rho = 1e-3, with
    ideal and nadir the best and the worst value of each objective among the points. For every
    point of a front there are weights that choose it, also where the front is not convex; the
    minimum of a weighted sum is on its convex hull alone.

    **Reference** Steuer and Choo: An interactive weighted Tchebycheff procedure for multiple
    objective programming (Mathematical Programming 26, 1983).
    """
    ideal, nadir = values.min(axis=0), values.max(axis=0)
    z = (values - ideal) / np.where(nadir > ideal, nadir - ideal, 1.0)
    found: Values = (weights * z).max(axis=1) + RHO * (weights * z).sum(axis=1)
    return found


def preferences(preference: Sequence[float] | None, objectives: Sequence[str]) -> Values:
    """Return weights over the objectives that add up to 1; equal ones for None.

    Raises
    ------
    StudyError
        For another number of weights, one that is negative or not finite, or a sum of 0.
    """
    m = len(objectives)
    if preference is None:
        return np.full(m, 1.0 / m)
    weights = np.asarray(preference, dtype=np.float64).reshape(-1)
    shown = ",".join(f"{w:g}" for w in weights)
    listed = ", ".join(objectives)
    if len(weights) != m:
        raise StudyError(
            f"preference {shown} has {len(weights)} weights for {m} objectives; give one each: "
            f"{listed}"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise StudyError(
            f"preference {shown} is not allowed; weights of {listed} must be 0 or more, not all 0"
        )
    normalised: Values = weights / weights.sum()
    return normalised


@dataclass(frozen=True, eq=False)
class Choice:
    """A trial that a preference chose from the front of its study.

    Attributes
    ----------
    which, number : str and int
        The study ("search" or "scalarization") and the trial's number in it.
    params : dict
        Keyword arguments of the estimator, searched and fixed.
    validation, test : dict of str to float
        Objective -> value, in its own sign.
    preference : dict of str to float
        Objective -> weight; they add up to 1.
    n_front : int
        Trials on the front it was chosen from.
    """

    which: str
    number: int
    params: dict[str, Any]
    validation: dict[str, float]
    test: dict[str, float]
    preference: dict[str, float]
    n_front: int


class Best:
    """The trial that a preference chose, and its model.

    Attributes
    ----------
    choice : Choice
    number : int
    params : dict
        Keyword arguments of the estimator.
    objectives : DataFrame indexed by objective
        ``validation`` and ``test``.
    model : TableModel
        As it was kept, or trained again; StudyError where it is not there.
    """

    def __init__(self, choice: Choice, study: str, source: Path | Problem) -> None:
        self.choice = choice
        self.number = choice.number
        self.params = choice.params
        self.objectives = pd.DataFrame({"validation": choice.validation, "test": choice.test})
        self._study, self._source = study, source

    @cached_property
    def model(self) -> TableModel:
        """The model of the trial, loaded or trained when it is first asked for."""
        if isinstance(self._source, Path):
            return kept(self._source, self.choice)
        return refit(self._source, self._study, self.choice)

    def __repr__(self) -> str:
        return f"Best(trial {self.number}, {self.choice.validation} on validation)"


def choose(
    results: Results, preference: Sequence[float] | None = None, which: str = SEARCH
) -> Choice | None:
    """Return the trial of a study's front that a preference asks for, None for an empty front.

    The one of smallest augmented weighted Chebyshev value, see :func:`chebyshev`, on the
    validation objectives; the test objectives have no say.

    Raises
    ------
    StudyError
        For a preference that does not fit the objectives.
    """
    weights = preferences(preference, results.objectives)
    rows = front(results, which)
    if not len(rows):
        return None
    best = int(np.argmin(chebyshev(results.minimised(rows, "validation"), weights)))
    row = rows.iloc[best]
    number = int(row["number"])
    values = {p: [float(v) for v in row[results.columns(p)]] for p in ("validation", "test")}
    return Choice(
        which=which,
        number=number,
        params=results.estimators.get((which, number), {}),
        validation=dict(zip(results.objectives, values["validation"], strict=True)),
        test=dict(zip(results.objectives, values["test"], strict=True)),
        preference=dict(zip(results.objectives, weights.tolist(), strict=True)),
        n_front=len(rows),
    )


def kept(out: str | Path, choice: Choice) -> TableModel:
    """Return the model that was kept of a trial.

    Raises
    ------
    StudyError
        In one line, where it is not there (on another machine, or removed) or cannot be read.
    """
    path = models.path(out, choice.which, choice.number)
    name = f"the model of {choice.which} trial {choice.number}"
    again = "train it again: --refit, or best(..., refit=True)"
    try:
        model = TableModel.load(path)
    except FileNotFoundError:
        raise StudyError(
            f"{name} is not here ({path} is missing: another machine may have it, or [study] "
            f"models is 'none'); {again}"
        ) from None
    except ValueError as error:
        raise StudyError(f"{name}: {error}; {again}") from None
    if model.about.get("trial") != choice.number or model.about.get("params") != choice.params:
        raise StudyError(f"{path} holds a model of another run; {again}")
    return model


def refit(problem: Problem, name: str, choice: Choice) -> TableModel:
    """Train the model of a trial again, with its keyword arguments, on the rows it had.

    Parameters
    ----------
    problem : Problem
        Of the study.
    name : str
        Of the study.
    choice : Choice
    """
    net = MultiTaskRegressor(**choice.params).fit(*problem.training(problem.folds[-1]))
    return model_of_trial(net, problem, name, choice.which, choice.number, choice.params)
