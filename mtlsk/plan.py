"""What a study would run: its fits, what it searches, and about how long, without a trial."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from mtlsk.descent import DivergenceError
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.outcome import SCALARIZATION, SEARCH, SINGLE_TASK
from mtlsk.problem import Problem, Rehearsal, rehearsals
from mtlsk.search import SearchSpace
from mtlsk.study import Study
from mtlsk.trials import cores

SHORT = 1.0
"""Seconds of an epoch beyond which one is timed, not two: the first has what torch does once."""


BESIDE = 0.08
"""Seconds that a trial takes beside its fits: most of it is the storage's."""


@dataclass(frozen=True)
class PlannedStudy:
    """One study of those a file asks for.

    Attributes
    ----------
    which : str
    sampler : str
    trials : int
    fits_a_trial : int
        Repeats x folds x nets.
    searched : dict of str to str
        Stored parameter -> what it is chosen from; ``aggregator[ConicGrad]__c`` is chosen only
        where ConicGrad is.
    grid : int or None
        Points, where the sampler is a grid.
    """

    which: str
    sampler: str
    trials: int
    fits_a_trial: int
    searched: dict[str, str]
    grid: int | None

    @property
    def fits(self) -> int:
        """All fits of the study."""
        return self.trials * self.fits_a_trial


class Asking(Rehearsal):
    """A stand-in for a trial that notes what it is asked."""

    def __init__(self, fixed: dict[str, Any], asked: dict[str, str]) -> None:
        super().__init__(fixed)
        self.asked = asked

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        """Note the interval and return the middle."""
        self.asked[name] = _interval(low, high, options)
        return super().suggest_float(name, low, high, **options)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        """Note the interval and return the middle."""
        self.asked[name] = f"{_interval(low, high, options)}, integer"
        return super().suggest_int(name, low, high, **options)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Note the choices and return the one asked for, or the first."""
        self.asked[name] = " | ".join(map(str, choices))
        return super().suggest_categorical(name, choices)


def _interval(low: float, high: float, options: Mapping[str, Any]) -> str:
    return f"{low:g} to {high:g}{', log' if options.get('log') else ''}"


def searched(space: SearchSpace, n_tasks: int) -> dict[str, str]:
    """Return what the trials of a space are asked: stored name -> what it is chosen from."""
    asked: dict[str, str] = {}
    for fixed in rehearsals(space):
        space.suggest(Asking(fixed, asked), n_tasks)
    found: dict[str, str] = {}
    for name, text in asked.items():
        entry = re.fullmatch(r"(.+)\[\d+\]", name)
        if entry is None:
            found[name] = text
        else:
            found[entry[1]] = f"a point of the simplex of {n_tasks} tasks"
    return found


def plan(study: Study) -> list[PlannedStudy]:
    """Return the studies that would run."""
    return [
        PlannedStudy(
            which=which,
            sampler=entry.sampler,
            trials=entry.wanted,
            fits_a_trial=entry.fits,
            searched=searched(entry.space, study.problem.n_tasks),
            grid=len(entry.first) if entry.sampler == "grid" else None,
        )
        for which, entry in study.lineup.items()
    ]


@dataclass(frozen=True)
class Estimate:
    """About how long a study takes.

    Attributes
    ----------
    fit_seconds : dict of str to float
        Choice of the aggregator, "scalarization", or "single_task" -> seconds of one fit.
    start : float
        Seconds until workers have begun: what this process took to import and load the same, and
        as many times that as there are workers a core.
    seconds : float
        Of all trials, divided by the workers, with ``BESIDE`` for each, and the start.
    workers : int
    """

    fit_seconds: dict[str, float]
    start: float
    seconds: float
    workers: int


def estimate(
    study: Study, workers: int | None = None, told: Callable[[str], None] | None = None
) -> Estimate:
    """Time an epoch or two of the middle of each aggregator's space, and multiply.

    On the training rows of the last fold, the most there are. Trials whose other choices are
    slower, pruning, an early stop and scalarization trained in one run are not in it.

    Parameters
    ----------
    study : Study
    workers : int or None
        As for :meth:`mtlsk.Study.run`.
    told : callable or None
        Told what is timed next.
    """
    n_workers = min(cores(), 8) if workers is None else workers
    used = psutil.Process().cpu_times()
    start = used.user + used.system
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // n_workers))
    try:
        fits: dict[str, float] = {}
        total = 0.0
        for which, entry in study.lineup.items():
            found = {}
            for word, params in middles(which, entry.space, study.problem.n_tasks):
                if told is not None:
                    told(word)
                found[word] = seconds_of(study.problem, {**params, **study.override}, which)
            fits |= found
            total += entry.wanted * entry.fits * sum(found.values()) / len(found)
        total += BESIDE * sum(entry.wanted for entry in study.lineup.values())
        start *= math.ceil(n_workers / cores())
        return Estimate(fits, start, start + total / n_workers, n_workers)
    finally:
        torch.set_num_threads(threads)


def middles(which: str, space: SearchSpace, n_tasks: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and the estimator's keyword arguments in the middle of each aggregator's space.

    Of a baseline there is one.
    """
    if which != SEARCH:
        yield which, space.suggest(Rehearsal({}), n_tasks)
        return
    for preset in space.presets or [None]:
        inner = space if preset is None else space.at(preset)
        for word in inner.classes("aggregator"):
            fixed = {"aggregator": word} | ({} if preset is None else {"preset": preset})
            name = word if preset is None else f"{preset}, {word}"
            yield name, space.suggest(Rehearsal(fixed), n_tasks)


def seconds_of(problem: Problem, params: Mapping[str, Any], which: str) -> float:
    """Return about how many seconds a whole fit takes, from the time of an epoch or two."""
    tasks = slice(0, 1) if which == SINGLE_TASK else slice(None)
    X, y = problem.training(problem.folds[-1], tasks)
    net = MultiTaskRegressor(**{"random_state": 0, **params})
    epochs = net.max_epochs
    net.set_params(max_epochs=1)
    start = time.perf_counter()
    try:
        net.fit(X, y)
        if time.perf_counter() - start < SHORT:
            net.partial_fit(X, y)
    except DivergenceError:
        if not net.history_:
            return 0.0
    return float(net.history_[-1, "dur"]) * float(epochs)


def speed_up(study: Study) -> str:
    """Say what trains together, which the estimate leaves aside; nothing where nothing does."""
    at_once = study.at_once.get(SCALARIZATION, 1)
    return f"scalarization trains up to {at_once} nets in one run and is faster" * (at_once > 1)
