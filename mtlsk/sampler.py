"""Samplers by name, whose random numbers depend on the draw alone, not on who draws."""

from __future__ import annotations

import json
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState

from mtlsk.component import closest
from mtlsk.studyfile import StudyError
from mtlsk.trials import draw_of

START = 10
"""Trials of a study that are drawn at random before the sampler looks at any result."""

POPULATION = 16
"""Of the evolutionary samplers: small, since a study has tens of trials, not thousands."""

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "TPE": lambda seed: TPESampler(seed=seed, n_startup_trials=START, constant_liar=True),
    "NSGA-II": lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION),
    "NSGA-III": lambda seed: NSGAIIISampler(seed=seed, population_size=POPULATION),
    "GP": lambda seed: GPSampler(seed=seed, n_startup_trials=START),
    "random": lambda seed: RandomSampler(seed=seed),
    "grid": lambda seed: RandomSampler(seed=seed),  # of what lies beyond its points
}
"""Name -> sampler of one trial, from its seed."""

BLIND = ("random", "grid")
"""Samplers that look at no result."""


def sampler_name(name: str) -> str:
    """Return a sampler's name as ``SAMPLERS`` writes it, from any case.

    Raises
    ------
    StudyError
        For a name that there is not.
    """
    found = {n.lower(): n for n in SAMPLERS}
    if name.lower() not in found:
        raise StudyError(
            f"[study] unknown sampler {name!r}{closest(name, SAMPLERS)}; allowed: "
            f"{', '.join(SAMPLERS)}"
        )
    return found[name.lower()]


def may_be_asked(told: int, asked: int, *, blind: bool = False) -> int:
    """Return how many trials may be asked for at once, at least one.

    Random ones depend on no result, so all of them; then as many as keep those without a result
    at a quarter of those with one: what comes of a trial should serve the next.

    Parameters
    ----------
    told : int
        Complete trials.
    asked : int
        Trials that run, or will.
    blind : bool
        Whether the sampler never looks at a result.
    """
    if blind:
        return 1 << 30
    room = START - told - asked if told + asked < START else told // 4 - asked
    return max(1, room)


class SeededByDraw(BaseSampler):
    """A sampler by name, seeded anew for each trial from (seed, draw).

    Workers that share one seed repeat each other's trials, and a study that goes on after an
    interruption would repeat its own; a draw (:func:`mtlsk.trials.draw_of`) is unique in its study,
    and the same for a trial that is run again. A parameter that a sampler draws by itself (all of
    them where it is random) has a seed of its own, so that its value does not depend on which
    others were drawn before.

    Parameters
    ----------
    seed : int
    name : str
        One of ``SAMPLERS``.
    first : list of dict
        Values of the first draws, by the names parameters have in the storage.
    """

    def __init__(
        self, seed: int, name: str = "TPE", first: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.seed = seed
        self.name = sampler_name(name)
        self.first = first
        self.inner: BaseSampler = RandomSampler(seed=seed)
        self.draw = 0

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        self.draw = draw_of(study, trial)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.inner = SAMPLERS[self.name](_seed(self.seed, self.draw))
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask the trial's sampler, but where the draw is given."""
        if self.draw < len(self.first):
            return {}
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the trial's sampler."""
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, distribution: Any
    ) -> Any:
        """Take what is given, draw with the parameter's own seed, or ask the trial's sampler."""
        given = self.first[self.draw] if self.draw < len(self.first) else {}
        if param_name in given:
            return given[param_name]
        if self.name in BLIND:
            seed = _seed(self.seed, self.draw, zlib.crc32(param_name.encode()))
            self.inner = RandomSampler(seed=seed)
        return self.inner.sample_independent(study, trial, param_name, distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the trial's sampler."""
        self.inner.after_trial(study, trial, state, values)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


# ---- grids


class Recorder:
    """A stand-in for a trial that takes one path through a space and notes what it passed.

    Parameters
    ----------
    path : list of int
        Which of its values each parameter takes, in the order they are asked for; 0 beyond.
    points : int
        Values of an interval, evenly spaced, on a logarithmic scale where it has one.

    Attributes
    ----------
    params : dict
        What was taken, by stored name.
    whole : bool
        Whether nothing asked for has more values than it could take.
    """

    def __init__(self, path: Sequence[int], points: int) -> None:
        self.path = path
        self.points = points
        self.params: dict[str, Any] = {}
        self.sizes: list[int] = []
        self.whole = True

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Take one of ``points`` values."""
        self.whole &= low == high
        return float(self._take(name, np.unique(self._spaced(low, high, log)).tolist()))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Take one of at most ``points`` values."""
        self.whole &= high - low < self.points
        values = np.unique(np.rint(self._spaced(low, high, log)).astype(int))
        return int(self._take(name, values.tolist()))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Take one of the choices."""
        return self._take(name, list(choices))

    def _spaced(self, low: float, high: float, log: bool) -> NDArray[np.float64]:
        values = np.linspace(
            math.log(low) if log else low, math.log(high) if log else high, self.points
        )
        return np.clip(np.exp(values) if log else values, low, high)

    def _take(self, name: str, values: list[Any]) -> Any:
        if name in self.params:
            return self.params[name]
        depth = len(self.sizes)
        self.sizes.append(len(values))
        self.params[name] = values[self.path[depth] if depth < len(self.path) else 0]
        return self.params[name]


def grid(
    suggest: Callable[[Any], object], points: int, at_most: int
) -> tuple[list[dict[str, Any]], bool]:
    """Return the points of a space, by stored names, and whether they are all that it has.

    A parameter that only some choices have multiplies only those, and of points that come to the
    same (of the numbers that a simplex is made of, only ratios count) there is one.

    Parameters
    ----------
    suggest : callable
        Asks a trial for all it needs, and returns what that comes to, or None.
    points : int
        Values of an interval.
    at_most : int
        It ends after one more than so many.
    """
    found: list[dict[str, Any]] = []
    whole, seen = True, set()
    for recorder, made in _paths(suggest, points):
        whole &= recorder.whole
        same = _rounded(recorder.params if made is None else made)
        if same not in seen:
            seen.add(same)
            found.append(recorder.params)
        if len(found) > at_most:
            break
    return found, whole


def _rounded(made: object) -> str:
    """Return a text that two values share if they differ by rounding at most."""
    text = json.dumps(made, sort_keys=True, default=repr)
    return repr(json.loads(text, parse_float=lambda number: f"{float(number):.9g}"))


def _paths(suggest: Callable[[Any], object], points: int) -> Iterator[tuple[Recorder, object]]:
    path: list[int] = []
    while True:
        recorder = Recorder(path, points)
        made = suggest(recorder)
        yield recorder, made
        path = [*path, *[0] * len(recorder.sizes)][: len(recorder.sizes)]
        while path and path[-1] + 1 >= recorder.sizes[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1
