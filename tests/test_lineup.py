"""What a study consists of: the search and its baselines, each with a budget."""

import optuna
import pytest

from mtlsk.lineup import line_up
from mtlsk.outcome import EQUAL_WEIGHTS, SCALARIZATION, SEARCH, SINGLE_TASK
from mtlsk.problem import Problem
from mtlsk.studyfile import StudyError, validate
from mtlsk.weights_sweep import lattice

LR = {"low": 1e-3, "high": 3e-2, "log": True}


def made(study=(), search=None, baselines=(), trials=None, **tables):
    data = {"name": "linnerud", "split": "random"}
    raw = {
        "study": {"name": "s", "trials": 60, **dict(study)},
        "data": {**data, **tables.pop("data", {})},
        "search": {"lr": LR} if search is None else search,
        "baselines": dict(baselines),
        **tables,
    }
    file = validate(raw, "s.toml")
    return line_up(file, Problem.load(file), trials=trials)


def wanted(lineup):
    return {which: entry.wanted for which, entry in lineup.items()}


def test_budgets():
    # of three tasks: 20 trials of three nets each are as many fits as the search has trials
    every = {SEARCH: 60, SCALARIZATION: 60, EQUAL_WEIGHTS: 15, SINGLE_TASK: 20}
    assert wanted(made()) == every
    own = {"scalarization": 7, "equal_weights": 0, "single_task": 2}
    assert wanted(made(baselines=own)) == {SEARCH: 60, SCALARIZATION: 7, SINGLE_TASK: 2}
    assert wanted(made(baselines={"scalarization": 0}, trials=8))[SEARCH] == 8
    assert SCALARIZATION not in made(baselines={"scalarization": 0}, trials=8)
    few = {SEARCH: 3, SCALARIZATION: 3, EQUAL_WEIGHTS: 3, SINGLE_TASK: 3}
    assert wanted(made(trials=3)) == few


def test_fits_of_a_trial():
    lineup = made(study={"repeats": 2}, data={"folds": 3})
    assert lineup[SEARCH].fits == 2 * 4
    assert lineup[SINGLE_TASK].fits == 2 * 4 * 3


def test_baselines_with_nothing_to_search_but_choices_end_when_they_have_seen_them():
    assert wanted(made(search={"aggregator": ["MGDA"]}))[EQUAL_WEIGHTS] == 1
    lineup = made(search={"optimizer": ["SGD", "AdamW"], "aggregator": ["MGDA"]})
    assert lineup[EQUAL_WEIGHTS].wanted == lineup[SINGLE_TASK].wanted == 2
    assert {p["optimizer"] for p in lineup[SINGLE_TASK].first} == {"SGD", "AdamW"}
    assert lineup[SCALARIZATION].wanted == 60


def test_no_two_studies_draw_the_same_numbers():
    seeds = [e.seed for seed in (0, 1) for e in made(study={"seed": seed}).values()]
    assert len(set(seeds)) == 8


def test_a_grid_is_cut_at_its_size_and_ordered_by_the_seed():
    search = {"aggregator": ["MGDA", "CAGrad"], "aggregator__c": [0.2, 0.4], "lr": LR}
    sampler = {"name": "grid", "points": 3}
    lineup = made(study={"sampler": sampler}, search=search)
    points = lineup[SEARCH].first
    assert lineup[SEARCH].wanted == len(points) == 3 + 2 * 3  # only CAGrad has c
    other = made(study={"sampler": sampler, "seed": 1}, search=search)[SEARCH].first
    assert sorted(map(str, points)) == sorted(map(str, other))
    assert points != other
    with pytest.raises(StudyError, match="more than 10000 points of search"):
        made(
            study={"sampler": {"name": "grid", "points": 101}}, search={"lr": LR, "task_scale": {}}
        )


def weights_of(entry, n_draws):
    study = optuna.create_study(sampler=entry.make_sampler())
    found = []
    for draw in range(n_draws):
        params = entry.space.suggest(study.ask(), 3)
        found.append(({**params, **entry.of_draw(draw)}["aggregator__weights"], params["lr"]))
    return found


def test_weights_of_the_scalarization():
    searched = weights_of(made()[SCALARIZATION], 3)
    assert searched[0][0] == pytest.approx([1 / 3] * 3)
    assert searched[1][0] != searched[2][0]
    drawn = weights_of(made(baselines={"weights": "dirichlet"})[SCALARIZATION], 60)
    assert len({tuple(w) for w, _ in drawn}) == len({rate for _, rate in drawn}) == 60
    even = weights_of(made(baselines={"weights": "lattice"})[SCALARIZATION], 60)
    assert [w for w, _ in even] == lattice(3, 60).tolist()


def test_a_grid_crosses_its_points_with_a_lattice_of_weights():
    sampler = {"name": "grid", "points": 4}
    entry = made(study={"sampler": sampler}, baselines={"scalarization": 20})[SCALARIZATION]
    found = weights_of(entry, 20)
    assert len({rate for _, rate in found}) == 4
    assert len({(tuple(w), rate) for w, rate in found}) == 20
    assert {tuple(w) for w, _ in found} == {tuple(w) for w in lattice(3, 5).tolist()}


def test_presets_are_chosen_together_and_the_baselines_take_what_is_not_the_method():
    presets = {
        "small": {"hidden_layer_sizes": [4], "aggregator": "MGDA"},
        "wide": {"hidden_layer_sizes": [32], "controller": "APT", "aggregator": "ConicGrad"},
    }
    lineup = made(search={"preset": {}, "lr": LR}, presets=presets)
    study = optuna.create_study(sampler=lineup[SEARCH].make_sampler())
    found = [lineup[SEARCH].space.suggest(study.ask(), 3) for _ in range(12)]
    pairs = {(p["aggregator"], tuple(p["hidden_layer_sizes"])) for p in found}
    assert pairs == {("MGDA", (4,)), ("ConicGrad", (32,))}
    baseline = lineup[SCALARIZATION].space
    assert baseline.presets == {
        "small": {"hidden_layer_sizes": [4]},
        "wide": {"hidden_layer_sizes": [32]},
    }
    methods = {"a": {"aggregator": "MGDA"}, "b": {"controller": "APT"}}
    alone = made(search={"preset": ["a", "b"], "lr": LR}, presets=methods)
    assert alone[SCALARIZATION].space.presets == {}


@pytest.mark.parametrize(
    ("search", "presets", "words"),
    [
        ({"preset": ["smal"]}, {"small": {}}, "did you mean 'small'"),
        ({"lr": LR}, {"small": {}}, "nothing chooses among them"),
        ({"preset": {}, "lr": LR}, {"a": {"lr": 0.1}}, r"\[presets.a\] lr is also searched"),
        (
            {"preset": {}, "aggregator": ["MGDA"]},
            {"a": {"aggregator__c": 0.1}},
            r"\[presets.a\] aggregator__c is also searched",
        ),
        ({"preset": {}}, {"a": {"lrr": 0.1}}, r"\[presets.a\] unknown key 'lrr'.*'lr'"),
        ({"preset": 3}, {"a": {}}, "must be a list of names"),
        ({"aggregator": ["MGDA"], "aggregator[CAGrad]__c": {}}, {}, "CAGrad is not searched"),
    ],
)
def test_what_is_wrong_with_presets_is_one_line(search, presets, words):
    with pytest.raises(StudyError, match=words) as caught:
        made(search=search, presets=presets)
    assert "\n" not in str(caught.value)


def test_an_entry_of_one_class_has_the_last_word():
    search = {
        "aggregator[ConicGrad]__c": {"low": 0.9, "high": 0.95},
        "aggregator": ["ConicGrad", "CAGrad"],
        "aggregator__c": {"low": 0.1, "high": 0.2},
    }
    parts = made(search=search)[SEARCH].space.parts
    assert parts["aggregator", "ConicGrad", "c"].low == 0.9
    assert parts["aggregator", "CAGrad", "c"].low == 0.1


def test_baselines_of_a_small_grid_have_no_more_trials_than_it():
    sampler = {"name": "grid", "points": 4}
    assert wanted(made(study={"sampler": sampler}))[SCALARIZATION] == 4
    assert wanted(made(study={"sampler": sampler}, trials=40))[SCALARIZATION] == 4
    asked = made(study={"sampler": sampler}, baselines={"scalarization": 20})
    assert wanted(asked)[SCALARIZATION] == 20


def test_a_grid_of_a_simplex_has_each_point_once():
    entry = made(
        study={"sampler": {"name": "grid", "points": 3}}, search={"task_scale": {"simplex": True}}
    )[SEARCH]
    made_of = [entry.space.suggest(optuna.trial.FixedTrial(p), 3) for p in entry.first]
    scales = {tuple(round(v, 9) for v in params["task_scale"]) for params in made_of}
    assert len(scales) == len(entry.first) == 3**3 - 2  # three equal numbers, whichever, are one


def test_a_longer_sweep_on_a_lattice_goes_on_from_the_shorter_one():
    short = made(baselines={"weights": "lattice"}, trials=7)[SCALARIZATION]
    longer = made(baselines={"weights": "lattice"}, trials=30)[SCALARIZATION]
    assert [w for w, _ in weights_of(longer, 7)] == [w for w, _ in weights_of(short, 7)]
