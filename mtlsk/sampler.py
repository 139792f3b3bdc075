"""A sampler whose random numbers depend on the trial alone, not on which process draws them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

START = 10
"""Trials of a study that are drawn at random before the sampler looks at any result."""


def may_be_asked(told: int, asked: int) -> int:
    """Return how many trials may be asked for at once, at least one.

    Random ones depend on no result, so all of them; then as many as keep those without a result
    at a quarter of those with one: what comes of a trial should serve the next.

    Parameters
    ----------
    told : int
        Complete trials.
    asked : int
        Trials that run, or will.
    """
    room = START - told - asked if told + asked < START else told // 4 - asked
    return max(1, room)


class SeededByTrial(BaseSampler):
    """TPE, seeded anew for each trial from (seed, trial number).

    Workers that share one seed repeat each other's trials, and a study that goes on after an
    interruption would repeat its own; a trial's number is unique in its study.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.inner: BaseSampler = TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        sequence = np.random.SeedSequence([self.seed, trial.number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.inner = TPESampler(
                seed=int(sequence.generate_state(1)[0]),
                n_startup_trials=START,
                constant_liar=True,
            )
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask the trial's sampler."""
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the trial's sampler."""
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, distribution: Any
    ) -> Any:
        """Ask the trial's sampler."""
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
