"""What a trial comes to: every fit it is made of, measured, and the mean over its repeats."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from skorch.callbacks import Callback

from mtlsk.estimators import MultiTaskRegressor
from mtlsk.machine import versions
from mtlsk.problem import Fold, Measures, Problem
from mtlsk.tablemodel import TableModel

Params = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one trial measured.

    Attributes
    ----------
    objectives : dict
        "validation" and "test" -> the objectives, means over repeats (and folds); none of nets of
        one task each.
    losses : dict
        "validation" and "test" -> the tasks' losses, alike.
    seconds : float
    repeats : list of dict
        Part -> (objectives, losses) of each repeat.
    net : fitted net or None
        The first repeat's, of the last fold.
    curve : list of lists
        The tasks' validation losses after each epoch of the first fit, where they were watched.
    """

    objectives: dict[str, list[float]]
    losses: dict[str, list[float]]
    seconds: float
    repeats: list[Measures] = field(default_factory=list)
    net: Any = None
    curve: list[list[float]] = field(default_factory=list)

    @property
    def told(self) -> list[float]:
        """What is minimised or maximised: validation objectives, or losses where there is none."""
        return self.objectives["validation"] or self.losses["validation"]

    @property
    def finite(self) -> bool:
        """Whether all objectives and losses are finite."""
        values = [*self.objectives.values(), *self.losses.values()]
        return bool(np.isfinite(np.concatenate([np.asarray(v, dtype=float) for v in values])).all())

    def measured(self) -> dict[str, Any]:
        """Return what a storage keeps, as plain data."""
        kept: dict[str, Any] = {
            "objectives": self.objectives,
            "losses": self.losses,
            "seconds": self.seconds,
        }
        if len(self.repeats) > 1:
            kept["repeats"] = self.repeats
        if self.curve:
            kept["curve"] = self.curve
        return kept


class Tally:
    """Fits of one trial, measured one after the other.

    Parameters
    ----------
    problem : Problem
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.found: list[list[Measures]] = []
        self.net: Any = None
        self.seconds = 0.0

    def add(self, repeat: int, fold: Fold, nets: Sequence[Any], *, single: bool = False) -> None:
        """Measure the net of a fold, or its nets of one task each, of which losses alone count."""
        start = time.perf_counter()
        if repeat == len(self.found):
            self.found.append([])

        def predict(X: Any) -> Any:
            return np.hstack([net.predict(X).reshape(len(X), -1) for net in nets])

        whole = None if single else nets[0]  # also where there is one task
        self.found[repeat].append(self.problem.measure(fold, predict, whole))
        if repeat == 0 and fold is self.problem.folds[-1]:
            self.net = whole
        self.seconds += time.perf_counter() - start

    def evaluation(self) -> Evaluation:
        """Return the means: over the folds of a repeat, then over the repeats."""
        repeats = [_over_folds(folds) for folds in self.found]
        objectives, losses = {}, {}
        for part in ("validation", "test"):
            objectives[part] = np.mean([r[part][0] for r in repeats], axis=0).tolist()
            losses[part] = np.mean([r[part][1] for r in repeats], axis=0).tolist()
        return Evaluation(objectives, losses, round(self.seconds, 3), repeats, self.net)


def _over_folds(folds: list[Measures]) -> Measures:
    found = {}
    for part in ("validation", "test"):
        of = [fold[part] for fold in folds if part in fold]
        found[part] = (
            np.mean([values for values, _ in of], axis=0).tolist(),
            np.mean([losses for _, losses in of], axis=0).tolist(),
        )
    return found


def seeded(params: Params, repeat: int) -> dict[str, Any]:
    """Return keyword arguments with the seed of a repeat: so much above the first one's."""
    seed = params.get("random_state")
    if not isinstance(seed, int):
        return dict(params)
    return {**params, "random_state": seed + repeat}


def evaluate(
    problem: Problem, params: Params, repeats: int = 1, watch: Callback | None = None
) -> Evaluation:
    """Fit an estimator with these parameters on every fold, with every seed, and measure it.

    Parameters
    ----------
    problem : Problem
    params : dict
        Keyword arguments of the estimator.
    repeats : int
    watch : skorch callback or None
        Of the first fit; it may raise ``TrialPruned``, and its ``curve`` is kept.

    Raises
    ------
    optuna.TrialPruned
        With the seconds it took as its attribute.
    """
    tally = Tally(problem)
    for repeat in range(repeats):
        for fold in problem.folds:
            start = time.perf_counter()
            net = MultiTaskRegressor(**seeded(params, repeat))
            if watch is not None and repeat == 0 and fold is problem.folds[0]:
                net.set_params(callbacks=[*(net.callbacks or []), watch])
            try:
                net.fit(*problem.training(fold))
            except optuna.TrialPruned as pruned:
                pruned.seconds = round(time.perf_counter() - start, 3)  # type: ignore[attr-defined]
                raise
            tally.seconds += time.perf_counter() - start
            tally.add(repeat, fold, [net])
    found = tally.evaluation()
    found.curve.extend(getattr(watch, "curve", []))
    return found


def evaluate_single(problem: Problem, params: Params, repeats: int = 1) -> Evaluation:
    """Fit one net a task with these parameters, as ``evaluate`` does one for all."""
    tally = Tally(problem)
    for repeat in range(repeats):
        for fold in problem.folds:
            start = time.perf_counter()
            nets = [
                MultiTaskRegressor(**seeded(params, repeat)).fit(
                    *problem.training(fold, slice(k, k + 1))
                )
                for k in range(problem.n_tasks)
            ]
            tally.seconds += time.perf_counter() - start
            tally.add(repeat, fold, nets, single=True)
    return tally.evaluation()


def model_of_trial(
    net: Any,
    problem: Problem,
    study: str,
    which: str,
    number: int,
    params: Mapping[str, Any],
) -> TableModel:
    """Return the model of a trial: its net, the last fold's, and where it comes from."""
    about = {
        "study": study,
        "of": which,
        "trial": number,
        "params": dict(params),
        "data": {"name": problem.name, "sha256": problem.sha256},
        "versions": versions(),
    }
    preparation = problem.folds[-1].preparation
    return TableModel(net, preparation, problem.feature_names, problem.task_names, about)
