"""A worker process: takes trials to run from its standard input, one line of JSON each.

The first line says what the study is; each further line asks for some trials and is answered by
one line on standard output when they have ended. The end of the input, also by the parent's death,
ends the worker.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optuna
import torch

from mtlsk.batch import Asked, Batch, SurplusError, counts, next_was_lost, trials_of
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.heartbeat import Heartbeat
from mtlsk.problem import Evaluation, Problem
from mtlsk.sampler import SeededByTrial
from mtlsk.search import SearchSpace
from mtlsk.storage import PATIENCE, StorageError
from mtlsk.studyfile import StudyError, StudyFile
from mtlsk.sweep import evaluate_each
from mtlsk.trials import (
    SCALARIZATION,
    SEARCH,
    load_study,
    open_storage,
    owner,
    say_on_stderr,
    study_names,
)


def warm_up() -> None:
    """Fit a tiny net once: what torch imports on first use is no part of the first trial's time."""
    X = np.random.default_rng(0).normal(size=(8, 2))
    MultiTaskRegressor(hidden_layer_sizes=(2,), max_epochs=1, random_state=0).fit(X, X)


class Worker:
    """One process's view of a study: data loaded once, a storage, the two search spaces."""

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
        space = SearchSpace.parse(self.study.estimator, self.study.search)
        self.spaces = {SEARCH: space, SCALARIZATION: space.baseline()}
        self.storage = open_storage(job["storage"], patience=PATIENCE, say=say)
        self.names = study_names(self.study.study.name)
        self.override = job["estimator"]  # the command line's word is the last
        self.wanted = job["wanted"]
        self.owner = owner()
        warm_up()

    def run(self, which: str, n_trials: int) -> int:
        """Run at most ``n_trials`` trials of a study and return how many ended."""
        # the two studies of one seed must not draw the same numbers
        seed = 2 * self.study.study.seed + int(which == SCALARIZATION)
        study = load_study(self.storage, self.names[which], SeededByTrial(seed))
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
                for i, outcome in self._evaluate(which, [t.params for t in together]):
                    batch.end(together[i].trial, outcome)
        self.storage.remove_session()
        return batch.ended

    def _ask(self, batch: Batch, which: str, n_trials: int) -> list[Asked]:
        """Ask for trials one after the other; one that was lost before comes alone."""
        asked: list[Asked] = []
        for _ in range(n_trials):
            if asked and next_was_lost(batch.study):
                break
            trial = batch.ask(self.owner)
            try:
                asked.append(Asked(trial, self._suggest(trial, batch.study, which)))
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
        space = self.spaces[which]
        suggested = space.suggest(trial, self.problem.n_tasks)
        # Optuna keeps the numbers a simplex is made from; a reader wants the point itself
        trial.set_user_attr("simplexes", space.simplexes(suggested))
        return {"random_state": self.study.study.seed, **suggested, **self.override}

    def _evaluate(
        self, which: str, wanted: list[dict[str, Any]]
    ) -> Iterable[tuple[int, Evaluation | Exception]]:
        if which == SCALARIZATION:
            return evaluate_each(self.problem, wanted)
        return ((i, self._search(params)) for i, params in enumerate(wanted))

    def _search(self, params: dict[str, Any]) -> Evaluation | Exception:
        try:
            return self.problem.evaluate(params)
        except StorageError:  # no fault of the trial
            raise
        except Exception as error:
            return error


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
