"""A worker process: takes trials to run from its standard input, one line of JSON each.

The first line says what the study is; each further line asks for some trials and is answered by
one line on standard output when they have ended. The end of the input, also by the parent's death,
ends the worker.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import TrialState

from mtlsk import models
from mtlsk.batch import Asked, Batch, SurplusError, counts, next_was_lost, trials_of
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.evaluation import Evaluation, evaluate, evaluate_single, model_of_trial
from mtlsk.heartbeat import Heartbeat
from mtlsk.lineup import line_up
from mtlsk.outcome import SCALARIZATION, SINGLE_TASK
from mtlsk.pareto import dominating, undominated_by
from mtlsk.problem import Problem
from mtlsk.pruning import Dominated
from mtlsk.sampler import SeededByDraw
from mtlsk.storage import PATIENCE, StorageError
from mtlsk.studyfile import StudyError, StudyFile
from mtlsk.sweep import evaluate_each
from mtlsk.trials import (
    failed,
    load_study,
    minimised,
    open_storage,
    owner,
    say_on_stderr,
    signs,
    study_names,
)


def warm_up() -> None:
    """Fit a tiny net once: what torch imports on first use is no part of the first trial's time."""
    X = np.random.default_rng(0).normal(size=(8, 2))
    MultiTaskRegressor(hidden_layer_sizes=(2,), max_epochs=1, random_state=0).fit(X, X)


class Worker:
    """One process's view of a study: data loaded once, a storage, the studies of its lineup."""

    def __init__(self, job: dict[str, Any], say: Callable[[str], None] = say_on_stderr) -> None:
        sys.path[:] = job["sys_path"]
        torch.set_num_threads(job["threads"])
        self.study = StudyFile.model_validate(job["study"])
        self.problem = Problem.load(self.study)
        if self.problem.sha256 != job["sha256"]:
            raise StudyError(
                f"the data of {self.problem.name!r} changed while the study ran; a maker without a "
                "seed draws anew each time: give it options = { random_state = 0 }"
            )
        self.wanted = job["wanted"]
        self.override = job["estimator"]  # the command line's word is the last
        # as it was lined up for so many trials: a grid, or a sweep's weights, depend on how many
        self.lineup = line_up(
            self.study, self.problem, trials=job["trials"], override=self.override
        )
        self.storage = open_storage(job["storage"], patience=PATIENCE, say=say)
        self.names = study_names(self.study.study.name)
        self.studies: dict[str, optuna.Study] = {}
        self.out = job["out"]
        self.owner = owner()
        warm_up()

    def run(self, which: str, n_trials: int) -> int:
        """Run at most ``n_trials`` trials of a study and return how many ended."""
        study = self._study(which)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        with Heartbeat(self.storage) as heartbeat:
            batch = Batch(study, heartbeat)
            asked = self._ask(batch, which, n_trials)
            # one that was lost before may take this process with it: nobody else's trial with it
            risky = [[t] for t in asked if t.trial.user_attrs.get("lost", 0)]
            safe = [t for t in asked if not t.trial.user_attrs.get("lost", 0)]
            for together in [safe, *risky]:
                for i, outcome in self._evaluate(which, study, [t.params for t in together]):
                    if isinstance(outcome, Evaluation):
                        self._keep(which, study, together[i], outcome)
                    batch.end(together[i].trial, outcome)
        self.storage.remove_session()
        return batch.ended

    def _study(self, which: str) -> optuna.Study:
        """Return a study, opened once: each opening reads all of its trials."""
        if which not in self.studies:
            self.studies[which] = load_study(self.storage, self.names[which])
        self.studies[which].sampler = self.lineup[which].make_sampler()
        return self.studies[which]

    def _ask(self, batch: Batch, which: str, n_trials: int) -> list[Asked]:
        """Ask for trials one after the other; one that was lost before comes alone."""
        asked: list[Asked] = []
        for _ in range(n_trials):
            if asked and next_was_lost(batch.study):
                break
            trial = batch.ask(self.owner)
            try:
                with self.storage.together():
                    params = self._suggest(trial, batch.study, which)
                asked.append(Asked(trial, params))
            except StorageError:
                raise
            except Exception as error:
                batch.end(trial, error)
            if trial.user_attrs.get("lost", 0):
                break
        return asked

    def _suggest(self, trial: optuna.Trial, study: optuna.Study, which: str) -> dict[str, Any]:
        """Return the estimator's keyword arguments in a trial."""
        earlier = [t for t in trials_of(study) if t.number < trial.number and counts(t)]
        if len(earlier) >= self.wanted[which]:
            raise SurplusError("another command on this storage was first")
        entry = self.lineup[which]
        assert isinstance(study.sampler, SeededByDraw)
        params = {
            "random_state": self.study.study.seed,
            **entry.space.suggest(trial, self.problem.n_tasks),
            **entry.of_draw(study.sampler.draw),
            **self.override,
        }
        # Optuna keeps names of presets and the numbers a simplex is made from; a reader wants all
        trial.set_user_attr("estimator", params)
        return params

    def _evaluate(
        self, which: str, study: optuna.Study, wanted: list[dict[str, Any]]
    ) -> Iterable[tuple[int, Evaluation | Exception]]:
        if which == SCALARIZATION and self.study.study.pruning is None:
            return evaluate_each(self.problem, wanted, self.study.study.repeats)
        return ((i, self._one(which, study, params)) for i, params in enumerate(wanted))

    def _one(self, which: str, study: optuna.Study, params: dict[str, Any]) -> Any:
        repeats = self.study.study.repeats
        try:
            if which == SINGLE_TASK:
                return evaluate_single(self.problem, params, repeats)
            return evaluate(self.problem, params, repeats, self._watch(study))
        except StorageError:  # no fault of the trial
            raise
        except Exception as error:
            return error

    def _watch(self, study: optuna.Study) -> Dominated | None:
        """Return what prunes a trial of a study, where the file asks for it."""
        prune = self.study.study.pruning
        if prune is None:
            return None
        measured = [
            t.user_attrs["measured"] for t in trials_of(study) if t.state is TrialState.COMPLETE
        ]
        curves = [m["curve"] for m in measured if "curve" in m]
        return Dominated(self.problem.folds[0], curves, prune.dominated_by, prune.after)

    def _keep(self, which: str, study: optuna.Study, asked: Asked, outcome: Evaluation) -> None:
        """Keep the model of a trial that no finished one dominates, and of those it leaves so.

        Before the trial is told: one that is complete has its model.
        """
        how = self.study.study.models
        if how == "none" or outcome.net is None or not outcome.finite:
            return
        numbers, values = minimised(study)
        mine = np.array([outcome.told]) * signs(study)
        if how == "front" and dominating(mine[0], values):
            return
        name, number = self.study.study.name, asked.trial.number
        model = model_of_trial(outcome.net, self.problem, name, which, number, asked.params)
        try:
            models.keep(self.out, which, number, model)
            if how == "front":  # what others are about to finish is not looked at
                left = undominated_by(values, np.vstack([values, mine]))
                gone = [n for n, stays in zip(numbers, left, strict=True) if not stays]
                models.drop(self.out, which, [*gone, *failed(study)])
        except (OSError, TypeError, AttributeError, pickle.PicklingError) as error:
            # the trial's numbers are worth more than its model
            print(f"the model of {which} trial {number}: {error}", file=sys.stderr)


def main() -> None:
    """Serve the parent until it closes the pipe."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a user's code prints must not be read as an answer

    def say(text: str) -> None:
        print(json.dumps({"say": text}), file=replies, flush=True)

    try:
        worker = Worker(json.loads(sys.stdin.readline()), say)
    except Exception as error:
        print(json.dumps({"error": " ".join(str(error).split())}), file=replies, flush=True)
        return
    print(json.dumps({"threads": torch.get_num_threads()}), file=replies, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"ended": worker.run(job["which"], job["trials"])}
        except Exception as error:  # the storage, not the trial: those are caught
            answer = {"error": " ".join(str(error).split())}
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
