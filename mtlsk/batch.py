"""Trials that one process runs at once: asked for, kept alive, and told one by one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from mtlsk.evaluation import Evaluation
from mtlsk.heartbeat import Heartbeat
from mtlsk.whole import whole


class SurplusError(RuntimeError):
    """A trial that is not needed: it fails without counting."""


class Asked(NamedTuple):
    """A trial that runs, and the estimator's keyword arguments in it."""

    trial: optuna.Trial
    params: dict[str, Any]


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of a study, not to be changed."""
    return study.get_trials(deepcopy=False)


def counts(trial: FrozenTrial) -> bool:
    """Say whether a trial counts, or will, towards the total wanted."""
    kept = trial.state in (TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED)
    return kept or "failed" in trial.user_attrs


def next_was_lost(study: optuna.Study) -> bool:
    """Say whether the next trial of the queue has brought down a worker before."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return bool(waiting and waiting[0].user_attrs.get("lost", 0))


class Batch:
    """Trials of one study that this process asked for.

    Attributes
    ----------
    ended : int
        How many have ended.
    """

    def __init__(self, study: optuna.Study, heartbeat: Heartbeat) -> None:
        self.study = study
        self.heartbeat = heartbeat
        self.storage = heartbeat.storage
        self.ended = 0

    def ask(self, owner: dict[str, Any]) -> optuna.Trial:
        """Return a trial that runs from now on and says whose it is."""
        with whole():  # nobody would know whose a trial without owner was
            with warnings.catch_warnings():
                # that asking sends no sign of life is what the heartbeat is for
                warnings.filterwarnings("ignore", message="Heartbeat of storage")
                trial = self.study.ask()
            with self._unless_taken(trial):
                trial.set_user_attr("owner", owner)
                self.heartbeat.add(trial._trial_id)
        return trial

    def end(self, trial: optuna.Trial, outcome: Evaluation | Exception) -> None:
        """Store what a trial measured, or why it failed."""
        if isinstance(outcome, Evaluation) and not outcome.finite:
            outcome = ArithmeticError(f"objectives are not finite: {outcome.told}")
        # one that said why it failed must not be queued again
        with whole(), self._unless_taken(trial), self.storage.together():
            if isinstance(outcome, Evaluation):
                trial.set_user_attr("measured", outcome.measured())
                self.study.tell(trial, outcome.told)
            elif isinstance(outcome, optuna.TrialPruned):
                trial.set_user_attr("pruned", str(outcome))
                trial.set_user_attr("measured", {"seconds": getattr(outcome, "seconds", 0.0)})
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                if isinstance(outcome, SurplusError):
                    trial.set_user_attr("surplus", True)  # its draw is left to another one
                else:
                    trial.set_user_attr("failed", reason(outcome))
                self.study.tell(trial, state=TrialState.FAIL)
        self.heartbeat.drop(trial._trial_id)
        self.ended += 1

    @contextlib.contextmanager
    def _unless_taken(self, trial: optuna.Trial) -> Iterator[None]:
        """Pass over a trial that somebody ended who took this process for dead."""
        try:
            yield
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            if self.study._storage.get_trial(trial._trial_id).state is TrialState.RUNNING:
                raise


def reason(error: Exception) -> str:
    """Return why a trial failed, in one line that begins with the kind of failure."""
    text = " ".join(str(error).split()) or type(error).__name__
    kind = "diverged" if isinstance(error, ArithmeticError) else type(error).__name__
    return f"{kind}: {text}"
