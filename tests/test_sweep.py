"""Trials of linear scalarization in one run come to what each comes to by itself."""

import time

import numpy as np
import pytest
import torch

import mtlsk.sweep
from mtlsk import DivergenceError
from mtlsk.evaluation import Evaluation, evaluate
from mtlsk.problem import Problem
from mtlsk.search import SearchSpace
from mtlsk.studyfile import validate
from mtlsk.sweep import AT_MOST, evaluate_each, members_at_once

RATE = {"low": 1e-3, "high": 3e-2, "log": True}


@pytest.fixture(scope="module")
def problem():
    data = {"name": "arm", "options": {"n_samples": 300, "random_state": 0}, "split": "random"}
    return Problem.load(validate({"study": {"name": "s"}, "data": data}, "s.toml"))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def runs(monkeypatch):
    """How many members each run had."""
    sizes = []
    fit_together = mtlsk.sweep.fit_together

    def counted(net, weights, *others):
        sizes.append(len(weights))
        return fit_together(net, weights, *others)

    monkeypatch.setattr(mtlsk.sweep, "fit_together", counted)
    return sizes


def trial(seed, **params):
    weights = np.random.default_rng(seed).dirichlet(np.ones(7)).tolist()
    small = {"hidden_layer_sizes": [8], "max_epochs": 6, "batch_size": 32, "random_state": 0}
    own = {"aggregator": "LinearScalarization", "aggregator__weights": weights, "controller": None}
    return {**small, **own, "lr": 0.002 * (seed + 1), **params}


def outcomes(problem, wanted):
    found = dict(evaluate_each(problem, wanted))
    assert sorted(found) == list(range(len(wanted)))
    return [found[i] for i in range(len(wanted))]


def numbers(outcome):
    parts = ("validation", "test")
    return [v for p in parts for v in (*outcome.objectives[p], *outcome.losses[p])]


def test_each_is_what_fit_makes_of_the_parameters(problem, runs):
    wanted = [trial(seed, max_epochs=20) for seed in range(4)]
    found = outcomes(problem, wanted)
    assert runs == [4]
    for params, outcome in zip(wanted, found, strict=True):
        np.testing.assert_allclose(
            numbers(outcome), numbers(evaluate(problem, params)), rtol=1e-3, atol=1e-5
        )
    assert len({outcome.objectives["validation"][0] for outcome in found}) == 4


def test_how_trials_were_grouped_leaves_no_trace(problem, runs, one_thread):
    wanted = [trial(seed) for seed in range(5)]
    ways = [[wanted], [wanted[:2], wanted[2:]], [[params] for params in wanted]]
    results = [
        [numbers(outcome) for group in way for outcome in outcomes(problem, group)] for way in ways
    ]
    assert runs == [5, 2, 3, 1, 1, 1, 1, 1]
    assert results[0] == results[1] == results[2]


def test_a_diverged_member_fails_alone(problem, runs):
    wanted = [trial(seed, optimizer="SGD") for seed in range(3)]
    wanted[1]["lr"] = 1e30
    first, second, third = outcomes(problem, wanted)
    assert runs == [3]
    assert isinstance(second, DivergenceError)
    assert "lr=1e+30" in str(second)
    assert isinstance(first, Evaluation)
    assert isinstance(third, Evaluation)


def test_trials_with_other_settings_run_apart(problem, runs):
    sizes = [[8], [6], [8], [8], [6]]
    wanted = [trial(seed, hidden_layer_sizes=h) for seed, h in enumerate(sizes)]
    found = outcomes(problem, wanted)
    assert runs == [3, 2]
    for params, outcome in zip(wanted, found, strict=True):
        np.testing.assert_allclose(
            numbers(outcome), numbers(evaluate(problem, params)), rtol=1e-3, atol=1e-5
        )


@pytest.mark.filterwarnings("ignore:LBFGS evaluates a batch several times")
@pytest.mark.parametrize(
    "apart", [{"update_norm": "mean"}, {"optimizer": "LBFGS", "max_epochs": 1}]
)
def test_what_cannot_be_one_run_is_fitted_one_by_one(problem, runs, apart):
    wanted = [trial(seed, **apart) for seed in range(3)]
    found = outcomes(problem, wanted)
    assert runs == []
    for params, outcome in zip(wanted, found, strict=True):
        assert numbers(outcome) == numbers(evaluate(problem, params))


@pytest.mark.parametrize(
    ("params", "sizes"),
    [
        ({"optimizer__lr": 0.01}, [1, 1]),  # lr is not what the optimizer gets: it stays apart
        ({"optimizer": {"name": "SGD", "lr": 0.01}}, [1, 1]),
        ({"optimizer": {"name": "SGD", "momentum": 0.5}}, [2]),
    ],
)
def test_a_rate_of_the_optimizers_own_holds(problem, runs, params, sizes):
    wanted = [trial(seed, **params) for seed in range(2)]
    found = outcomes(problem, wanted)
    assert runs == sizes
    for each, outcome in zip(wanted, found, strict=True):
        np.testing.assert_allclose(
            numbers(outcome), numbers(evaluate(problem, each)), rtol=1e-3, atol=1e-5
        )


def test_without_a_rate_the_nets_own_holds(problem, runs):
    wanted = [trial(seed) for seed in range(2)]
    for params in wanted:
        del params["lr"]
    for params, outcome in zip(wanted, outcomes(problem, wanted), strict=True):
        np.testing.assert_allclose(numbers(outcome), numbers(evaluate(problem, params)), rtol=1e-3)
    assert runs == [2]


def test_what_is_wrong_with_one_trial_is_not_the_others(problem):
    wanted = [trial(seed) for seed in range(3)]
    wanted[1]["aggregator__weights"] = [1.0, 2.0]
    first, second, third = outcomes(problem, wanted)
    assert isinstance(second, Exception)
    assert isinstance(first, Evaluation)
    assert isinstance(third, Evaluation)


def test_what_cannot_be_measured_fails_alone(problem, monkeypatch):
    calls = []

    def measure(self, fold, predict, net):
        calls.append(net)
        if len(calls) == 2:
            raise ValueError("no score")
        return dict.fromkeys(("validation", "test"), ([1.0], [1.0]))

    monkeypatch.setattr(Problem, "measure", measure)
    found = outcomes(problem, [trial(seed) for seed in range(3)])
    assert [type(outcome).__name__ for outcome in found] == [
        "Evaluation",
        "ValueError",
        "Evaluation",
    ]


def test_seconds_are_shares_of_the_run(problem):
    start = time.perf_counter()
    found = outcomes(problem, [trial(seed, max_epochs=40) for seed in range(4)])
    took = time.perf_counter() - start
    assert 0.5 * took < sum(outcome.seconds for outcome in found) < took + 0.01


def at_once(problem, estimator=(), search=()):
    space = SearchSpace.parse({"batch_size": 32, **dict(estimator)}, {"lr": RATE, **dict(search)})
    return members_at_once(space.baseline(), problem)


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"hidden_layer_sizes": [[8], [16]]},
        {"optimizer": ["SGD", "AdamW"]},
        {"optimizer": ["AdamW", "LBFGS"]},  # those of the first at least
        {"task_scale": {"simplex": True}, "aggregator": ["MGDA", "ConicGrad"], "aggregator__c": {}},
    ],
)
def test_spaces_whose_trials_are_worth_one_run(problem, search):
    assert at_once(problem, search=search) == AT_MOST


@pytest.mark.parametrize(
    ("estimator", "search"),
    [
        ({"update_norm": "mean"}, {}),
        ({"optimizer": "LBFGS"}, {}),
        ({"hidden_layer_sizes": [2000, 2000]}, {}),  # gains nothing
        ({}, {"batch_size": {"low": 16, "high": 256}}),  # hardly two are alike
        ({"optimizer": "SGD"}, {"optimizer__momentum": {"low": 0.0, "high": 0.9}}),
        ({}, {"hidden_layer_sizes": [[n] for n in range(1, 18)]}),
    ],
)
def test_spaces_whose_trials_are_asked_for_one_by_one(problem, estimator, search):
    assert at_once(problem, estimator, search) == 1


def test_every_seed_and_fold_of_many_trials_is_one_run_each(runs):
    data = {"name": "arm", "options": {"n_samples": 200, "random_state": 0}, "split": "random"}
    file = validate({"study": {"name": "s"}, "data": {**data, "folds": 2}}, "s.toml")
    folded = Problem.load(file)
    wanted = [trial(seed, max_epochs=2) for seed in range(3)]
    found = dict(evaluate_each(folded, wanted, 2))
    assert runs == [3] * (2 * 3)  # two seeds, two folds and the net of both
    for i, params in enumerate(wanted):
        alone = evaluate(folded, params, 2)
        np.testing.assert_allclose(numbers(found[i]), numbers(alone), rtol=1e-3)
        for mine, its in zip(found[i].repeats, alone.repeats, strict=True):
            np.testing.assert_allclose(mine["test"][1], its["test"][1], rtol=1e-3)
        assert found[i].repeats[0] != found[i].repeats[1]
