import math

import optuna
import pytest
from optuna.trial import FixedTrial

from mtlsk.search import SearchSpace
from mtlsk.studyfile import StudyError


def trials(space, n=60, n_tasks=3):
    """Parameters and stored parameters of n random trials."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    asked = [study.ask() for _ in range(n)]
    return [(space.suggest(trial, n_tasks), trial.params) for trial in asked]


def test_a_component_parameter_is_sampled_only_for_the_classes_that_have_it():
    space = SearchSpace.parse(
        {}, {"aggregator": ["ConicGrad", "cagrad", "MGDA"], "aggregator__c": {}}
    )
    names = {"ConicGrad": "aggregator[ConicGrad]__c", "cagrad": "aggregator[CAGrad]__c"}
    seen = set()
    for params, stored in trials(space):
        seen.add(params["aggregator"])
        expected = names.get(params["aggregator"])
        assert set(stored) == {"aggregator"} | ({expected} if expected else set())
        assert ("aggregator__c" in params) == (expected is not None)
        if expected:
            assert params["aggregator__c"] == stored[expected]
    assert seen == {"ConicGrad", "cagrad", "MGDA"}


def test_none_is_no_controller_and_has_no_parameters():
    space = SearchSpace.parse({}, {"controller": ["none", "APT"], "controller__beta_max": {}})
    for params, _ in trials(space):
        assert (params["controller"] is None) == ("controller__beta_max" not in params)


def test_a_bound_that_names_a_sibling_holds_also_for_the_files_own_bounds():
    space = SearchSpace.parse(
        {"controller": "APT"},
        {
            "controller__beta_max": {"low": 0.1, "high": 0.95},
            "controller__beta_min": {"low": 0.0, "high": 0.9},
        },
    )
    pairs = [(p["controller__beta_min"], p["controller__beta_max"]) for p, _ in trials(space)]
    assert all(low <= high for low, high in pairs)
    assert any(low > 0.5 for low, _ in pairs)


def test_a_fixed_sibling_bounds_the_searched_one():
    space = SearchSpace.parse(
        {"controller": "APT", "controller__beta_min": 0.7}, {"controller__beta_max": {}}
    )
    assert all(p["controller__beta_max"] >= 0.7 for p, _ in trials(space))


def test_a_fixed_parameter_goes_to_the_classes_that_have_it():
    space = SearchSpace.parse({"aggregator__c": 0.3}, {"aggregator": ["MGDA", "CAGrad"]})
    for params, _ in trials(space):
        assert params.get("aggregator__c") == (0.3 if params["aggregator"] == "CAGrad" else None)


def test_task_scale_is_a_simplex_whose_centre_changes_nothing():
    space = SearchSpace.parse({}, {"task_scale": {"simplex": True}})
    for params, stored in trials(space):
        assert math.isclose(sum(params["task_scale"]), 3)
        assert set(stored) == {f"task_scale[{k}]" for k in range(3)}
        assert space.simplexes(params) == {"task_scale": params["task_scale"]}
    centre = space.suggest(FixedTrial({f"task_scale[{k}]": 0.5 for k in range(3)}), 3)
    assert centre["task_scale"] == pytest.approx([1, 1, 1])


def test_lists_and_numbers_as_choices_and_bounds():
    space = SearchSpace.parse(
        {},
        {
            "hidden_layer_sizes": [[32], [64, 64]],
            "batch_size": {"low": 32, "high": 128},
            "lr": {"low": 1e-3, "high": 1e-1, "log": True},
            "optimizer": ["SGD", "AdamW"],
            "optimizer__momentum": {"low": 0.0, "high": 0.9},
        },
    )
    for params, _ in trials(space):
        assert params["hidden_layer_sizes"] in ([32], [64, 64])
        assert isinstance(params["batch_size"], int)
        assert 32 <= params["batch_size"] <= 128
        assert 1e-3 <= params["lr"] <= 1e-1
        assert 0 <= params["optimizer__momentum"] <= 0.9


def test_the_baseline_searches_weights_and_what_is_not_about_gradients():
    space = SearchSpace.parse(
        {"max_epochs": 3, "aggregator__c": 0.3, "task_scale": [1, 2, 3]},
        {
            "aggregator": ["ConicGrad"],
            "controller": ["APT"],
            "task_scale": {"simplex": True},
            "lr": {"low": 1e-3, "high": 1e-1, "log": True},
        },
    ).baseline()
    for params, stored in trials(space):
        assert params["aggregator"] == "LinearScalarization"
        assert params["controller"] is None
        assert math.isclose(sum(params["aggregator__weights"]), 1)
        assert set(params) == {
            "max_epochs",
            "aggregator",
            "controller",
            "aggregator__weights",
            "lr",
        }
        assert sum("weights" in name for name in stored) == 3
    equal = space.suggest(FixedTrial({**space.equal_weights(3), "lr": 1e-2}), 3)
    assert equal["aggregator__weights"] == pytest.approx([1 / 3] * 3)
    name = "aggregator[LinearScalarization]__weights"
    assert space.simplexes(equal) == {name: equal["aggregator__weights"]}


@pytest.mark.parametrize(
    ("estimator", "search", "words"),
    [
        ({"max_epoch": 3}, {}, ["[estimator]", "'max_epoch'", "max_epochs"]),
        ({}, {"agregator": ["MGDA"]}, ["[search]", "'agregator'", "did you mean 'aggregator'"]),
        ({}, {"aggregator": ["MGDa2"]}, ["aggregator", "'MGDa2'", "did you mean 'MGDA'"]),
        ({}, {"aggregator": "MGDA"}, ["aggregator", "list of names"]),
        ({}, {"aggregator": ["MGDA"], "aggregator__c": {}}, ["none of MGDA", "'c'"]),
        ({}, {"lr": {"low": 1}}, ["lr", "finite numbers low and high"]),
        ({}, {"lr": {"low": 1, "hihg": 2}}, ["'hihg'", "did you mean 'high'"]),
        ({}, {"lr": {"low": 2, "high": 1}}, ["lr", "empty"]),
        ({}, {"lr": {"low": 0.0, "high": 1.0, "log": True}}, ["log needs low > 0"]),
        ({}, {"lr": 0.1}, ["lr=0.1", "list of choices"]),
        ({}, {"lr": []}, ["empty list"]),
        ({"aggregator": "MGDAA"}, {"aggregator": ["MGDA"]}, ["[estimator]", "'MGDAA'"]),
        ({"aggregator": 3}, {}, ["aggregator=3", "is not understood"]),
        ({"aggregator__zz": 3}, {"aggregator": ["CAGrad"]}, ["aggregator__zz", "theirs: c"]),
        (
            {},
            {"aggregator": ["ConicGrad"], "aggregator__c": [0.2, 3.0]},
            ["3.0 is not allowed", "(0, 1]"],
        ),
        ({}, {"max_epochs": {}}, ["max_epochs", "declares no domain"]),
        (
            {},
            {"aggregator": ["CAGrad"], "aggregator__c": {"low": -1, "high": 0.5}},
            ["-1 is outside", "[0, inf)"],
        ),
        (
            {},
            {"aggregator": ["ConicGrad"], "aggregator__solver": ["exact", "flipp"]},
            ["'flipp'", "'flip'"],
        ),
    ],
)
def test_wrong_searches_are_one_line(estimator, search, words):
    with pytest.raises(StudyError) as caught:
        SearchSpace.parse(estimator, search)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_controllers_are_sampled_for_the_aggregators_they_fit():

    search = {
        "aggregator": ["GradNorm", "ConicGrad"],
        "controller": ["none", "APT", "ConeAngle"],
        "controller__rho": {},
    }
    space = SearchSpace.parse({}, search)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        trial = study.ask()
        params = space.suggest(trial, 3)
        seen.add((params["aggregator"], params["controller"]))
        again = space.suggest(optuna.trial.FixedTrial(trial.params), 3)
        assert again == params
    both = {("ConicGrad", c) for c in (None, "APT", "ConeAngle")}
    assert seen == both | {("GradNorm", None), ("GradNorm", "APT")}
    alone = SearchSpace.parse({"aggregator": "MGDA"}, {"controller": ["ConeAngle"]})
    with pytest.raises(StudyError, match='none of ConeAngle fits MGDA; add "none" to the list'):
        alone.suggest(FixedTrial({}), 3)


def test_a_preset_is_named_once():
    presets = {"a": {"lr": 0.1}}
    with pytest.raises(StudyError, match="names 'a' twice"):
        SearchSpace.parse({}, {"preset": ["a", "a"]}, presets)
