"""A worker process: takes trials to run from its standard input, one line of JSON each.

The first line says what the study is; each further line is one trial to run and is answered by
one line on standard output. The end of the input, also by the parent's death, ends the worker.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import TrialState

from mtlsk.estimators import MultiTaskRegressor
from mtlsk.problem import Problem
from mtlsk.sampler import SeededByTrial
from mtlsk.search import SearchSpace
from mtlsk.studyfile import StudyError, StudyFile
from mtlsk.trials import SCALARIZATION, SEARCH, load_study, open_storage, owner, study_names


def warm_up() -> None:
    """Fit a tiny net once: what torch imports on first use is no part of the first trial's time."""
    X = np.random.default_rng(0).normal(size=(8, 2))
    MultiTaskRegressor(hidden_layer_sizes=(2,), max_epochs=1, random_state=0).fit(X, X)


class SurplusError(RuntimeError):
    """A trial that is not needed: it fails without counting."""


def trials_of(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of a study, not to be changed."""
    return study.get_trials(deepcopy=False)


def counts(trial: optuna.trial.FrozenTrial) -> bool:
    """Say whether a trial counts, or will, towards the total wanted."""
    running = trial.state in (TrialState.COMPLETE, TrialState.RUNNING)
    return running or "failed" in trial.user_attrs


class Worker:
    """One process's view of a study: data loaded once, a storage, the two search spaces."""

    def __init__(self, job: dict[str, Any]) -> None:
        sys.path[:] = job["sys_path"]
        torch.set_num_threads(job["threads"])
        self.study = StudyFile.model_validate(job["study"])
        self.problem = Problem.load(self.study)
        if self.problem.sha256 != job["sha256"]:
            raise StudyError(f"the data of {self.problem.name!r} changed while the study ran")
        space = SearchSpace.parse(self.study.estimator, self.study.search)
        self.spaces = {SEARCH: space, SCALARIZATION: space.baseline()}
        self.storage = open_storage(job["storage"])
        self.names = study_names(self.study.study.name)
        self.override = job["estimator"]  # the command line's word is the last
        self.wanted = job["wanted"]
        self.owner = owner()
        warm_up()

    def run(self, which: str) -> str:
        """Run one trial of a study and return its end: COMPLETE or FAIL."""
        # the two studies of one seed must not draw the same numbers
        seed = 2 * self.study.study.seed + int(which == SCALARIZATION)
        study = load_study(self.storage, self.names[which], SeededByTrial(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                study.optimize(
                    lambda trial: self.objective(trial, study, which),
                    n_trials=1,
                    catch=(Exception,),
                )
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                # somebody took this process for dead and ended its trial
                if any(t.state is TrialState.RUNNING and self._mine(t) for t in trials_of(study)):
                    raise
        ended = [t for t in trials_of(study) if t.state.is_finished() and self._mine(t)]
        return max(ended, key=lambda t: t.number).state.name if ended else "FAIL"

    def _mine(self, trial: optuna.trial.FrozenTrial) -> bool:
        return bool(trial.user_attrs.get("owner") == self.owner)

    def objective(self, trial: optuna.Trial, study: optuna.Study, which: str) -> list[float]:
        """Return the validation objectives of one trial and store what it measured on test."""
        trial.set_user_attr("owner", self.owner)
        earlier = [t for t in trials_of(study) if t.number < trial.number and counts(t)]
        if len(earlier) >= self.wanted[which]:
            raise SurplusError("another command on this storage was first")
        space = self.spaces[which]
        try:
            suggested = space.suggest(trial, self.problem.n_tasks)
            # Optuna keeps the numbers a simplex is made from; a reader wants the point itself
            trial.set_user_attr("simplexes", space.simplexes(suggested))
            params = {"random_state": self.study.study.seed, **suggested, **self.override}
            measured = self.problem.evaluate(params)
            if not np.isfinite([*measured.validation, *measured.test]).all():
                raise ArithmeticError(f"objectives are not finite: {measured.validation}")
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            kind = "diverged" if isinstance(error, ArithmeticError) else type(error).__name__
            trial.set_user_attr("failed", f"{kind}: {text}")
            raise
        trial.set_user_attr("test", measured.test)
        trial.set_user_attr("test_losses", measured.test_losses)
        trial.set_user_attr("seconds", measured.seconds)
        return measured.validation


def main() -> None:
    """Serve the parent until it closes the pipe."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a user's code prints must not be read as an answer
    try:
        worker = Worker(json.loads(sys.stdin.readline()))
    except Exception as error:
        print(json.dumps({"error": " ".join(str(error).split())}), file=replies, flush=True)
        return
    print(json.dumps({"threads": torch.get_num_threads()}), file=replies, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = {"state": worker.run(job["which"])}
        except Exception as error:  # the storage, not the trial: those are caught
            answer = {"error": " ".join(str(error).split())}
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
