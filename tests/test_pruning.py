"""Fits end early where finished trials were better in every task."""

import pickle

import numpy as np
import optuna
import pytest

from mtlsk import MultiTaskRegressor
from mtlsk.evaluation import evaluate
from mtlsk.problem import Problem
from mtlsk.pruning import Dominated
from mtlsk.studyfile import validate

PARAMS = {"hidden_layer_sizes": [4], "max_epochs": 6, "batch_size": 32, "random_state": 0}


@pytest.fixture(scope="module")
def problem():
    data = {"name": "arm", "options": {"n_samples": 200, "random_state": 0}, "split": "random"}
    return Problem.load(validate({"study": {"name": "s"}, "data": data}, "s.toml"))


@pytest.fixture(scope="module")
def curve(problem):
    """The validation losses of the trial itself, by another route."""
    X, y = problem.folds[0].measured["validation"]
    net = MultiTaskRegressor(**PARAMS).initialize_for(*problem.folds[0].train)
    found = []
    for _ in range(6):
        net.partial_fit(*problem.folds[0].train)
        found.append(((net.predict(X) - y) ** 2).mean(axis=0))
    return np.array(found)


def watched(problem, curves, **options):
    watch = Dominated(problem.folds[0], curves, **{"dominated_by": 2, "after": 3, **options})
    return evaluate(problem, PARAMS, 1, watch)


def test_the_curve_is_kept_and_training_is_the_same(problem, curve):
    found = watched(problem, [])
    np.testing.assert_allclose(found.curve, curve, rtol=1e-5)
    assert found.measured()["curve"] == found.curve
    assert found.objectives == evaluate(problem, PARAMS).objectives
    kept = pickle.loads(pickle.dumps(found.net))
    kept.partial_fit(*problem.folds[0].train)  # without the data it was watched on
    (callback,) = kept.callbacks
    assert callback.fold is None


def test_two_better_trials_end_it_at_the_first_epoch_allowed(problem, curve):
    better = (curve * 0.9).tolist()
    with pytest.raises(optuna.TrialPruned, match="after epoch 3: 2 finished trials") as caught:
        watched(problem, [better, better])
    assert caught.value.seconds > 0
    assert len(watched(problem, [better]).curve) == 6  # one is not enough
    with pytest.raises(optuna.TrialPruned, match="after epoch 5"):
        watched(problem, [better, better], after=5)


def test_who_is_worse_in_one_task_or_was_shorter_does_not_count(problem, curve):
    mixed = curve * 0.9
    mixed[:, 4] = curve[:, 4] * 1.1
    assert len(watched(problem, [mixed.tolist()] * 3).curve) == 6
    short = (curve[:2] * 0.9).tolist()
    assert len(watched(problem, [short] * 3).curve) == 6
    late = curve * 1.1
    late[3:] = curve[3:] * 0.9
    with pytest.raises(optuna.TrialPruned, match="after epoch 4"):
        watched(problem, [late.tolist()] * 2)


def test_losses_that_are_not_finite_prune_nothing(problem, curve):
    better = (curve * 0.5).tolist()
    strange = (curve * np.inf).tolist()
    assert len(watched(problem, [better, strange, strange]).curve) == 6
