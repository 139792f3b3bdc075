"""What a study consists of: the search and its baselines, each with its space and its budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlsk.outcome import EQUAL_WEIGHTS, SCALARIZATION, SEARCH, SINGLE_TASK
from mtlsk.problem import Problem
from mtlsk.sampler import BLIND, SeededByDraw, grid, sampler_name
from mtlsk.search import SearchSpace
from mtlsk.studyfile import StudyError, StudyFile
from mtlsk.sweep import WEIGHTS
from mtlsk.weights_sweep import dirichlet, lattice

MOST = 10_000
"""Points of a grid."""

ORDER = (SEARCH, SCALARIZATION, EQUAL_WEIGHTS, SINGLE_TASK)
"""A study's place says which random numbers it draws."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One study of a lineup.

    Attributes
    ----------
    which : str
    space : SearchSpace
    wanted : int
        Trials.
    fits : int
        Fits of a trial: repeats x folds x nets.
    sampler : str
    seed : int
    first : list of dict
        Stored parameters of the first draws, those of a grid or of equal weights.
    weights : (n, K) array or None
        Of the scalarization, where the sampler does not choose them: one row after the other.
    """

    which: str
    space: SearchSpace
    wanted: int
    fits: int
    sampler: str = "TPE"
    seed: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    weights: NDArray[np.float64] | None = None

    def make_sampler(self) -> SeededByDraw:
        """Return a sampler of this study's trials."""
        return SeededByDraw(self.seed, self.sampler, self.first)

    @property
    def blind(self) -> bool:
        """Whether trials are drawn without a look at results."""
        return self.sampler in BLIND

    def of_draw(self, draw: int) -> dict[str, Any]:
        """Return keyword arguments of the estimator that the draw says, not the sampler."""
        if self.weights is None:
            return {}
        return {WEIGHTS: self.weights[draw % len(self.weights)].tolist()}


def line_up(
    file: StudyFile,
    problem: Problem,
    *,
    trials: int | None = None,
    override: Mapping[str, Any] | None = None,
) -> dict[str, Entry]:
    """Return the studies that a file asks for, "search" first.

    Parameters
    ----------
    file : StudyFile
    problem : Problem
    trials : int or None
        Instead of the file's, of the search and of the scalarization.
    override : dict or None
        Keyword arguments of the estimator above the file's.

    Raises
    ------
    StudyError
        For a space that is not what its classes declare, or a grid of too many points.
    """
    space = SearchSpace.parse({**file.estimator, **(override or {})}, file.search, file.presets)
    baselines, k = file.baselines, problem.n_tasks
    name = sampler_name(file.study.sampling.name)
    on_grid = _points(space, problem, file, SEARCH, name)
    search = trials or file.study.trials
    if on_grid:  # a budget is what the search has, not what it was offered
        search = min(search, len(on_grid))
    quarter = min(search, max(5, math.ceil(search / 4)))
    scalarization = search if baselines.scalarization is None else baselines.scalarization
    if trials is not None and scalarization:
        scalarization = search
    asked = {
        SEARCH: search,
        SCALARIZATION: scalarization,
        EQUAL_WEIGHTS: _given(baselines.equal_weights, quarter),
        # as many fits as the search has trials
        SINGLE_TASK: _given(baselines.single_task, min(search, max(5, math.ceil(search / k)))),
    }
    how = "lattice" if baselines.weights == "search" and name == "grid" else baselines.weights
    spaces = {SEARCH: space, SCALARIZATION: space.baseline(weights=how == "search")}
    spaces |= dict.fromkeys((EQUAL_WEIGHTS, SINGLE_TASK), space.baseline(weights=False))
    fits = file.study.repeats * len(problem.folds)
    found = {}
    for place, which in enumerate(ORDER):
        if not asked[which]:
            continue
        each = spaces[which]
        points = on_grid if which == SEARCH else _points(each, problem, file, which, name)
        wanted = asked[which]
        weights = None
        if points and which != SCALARIZATION:
            wanted = min(wanted, len(points))
        if which == SCALARIZATION and how != "search":
            weights = _weights(how, k, wanted, len(points), file.study.seed)
        first = points
        if which == SCALARIZATION and how == "search":
            first = [space.equal_weights(k)]
        if which == SCALARIZATION and points:
            first = [points[i % len(points)] for i in range(wanted)]
        found[which] = Entry(
            which,
            each,
            wanted,
            fits * (k if which == SINGLE_TASK else 1),
            sampler=name,
            seed=len(ORDER) * file.study.seed + place,
            first=first,
            weights=weights,
        )
    return found


def _given(number: int | None, otherwise: int) -> int:
    return otherwise if number is None else number


def _points(
    space: SearchSpace, problem: Problem, file: StudyFile, which: str, sampler: str
) -> list[dict[str, Any]]:
    """Return the points of a grid, in an order of the seed; of a small space also without one.

    A baseline with nothing to search but a few choices is done when it has seen them all.
    """
    suggest = partial(space.suggest, n_tasks=problem.n_tasks)
    if sampler == "grid":
        points, _ = grid(suggest, file.study.sampling.per_interval, MOST)
        if len(points) > MOST:
            raise StudyError(
                f"[study] sampler 'grid' has more than {MOST} points of {which}; search fewer "
                'parameters, or give fewer points: sampler = { name = "grid", points = 3 }'
            )
    elif which in (EQUAL_WEIGHTS, SINGLE_TASK):
        points, whole = grid(suggest, 2, MOST)
        if not whole or len(points) > MOST:
            return []
    else:
        return []
    order = np.random.default_rng(file.study.seed).permutation(len(points))
    return [points[i] for i in order]


def _weights(how: str, k: int, wanted: int, n_points: int, seed: int) -> NDArray[np.float64]:
    """Return one weight vector a draw; each is kept for all points of a grid, one after another."""
    n = math.ceil(wanted / max(1, n_points))
    rows = lattice(k, n) if how == "lattice" else dirichlet(k, n, seed)
    return np.repeat(rows, max(1, n_points), axis=0)
