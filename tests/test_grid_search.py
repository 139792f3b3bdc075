"""The regressor inside scikit-learn's tools: pipelines, cross-validation, searches, workers."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mtlsk import SCORERS, MultiTaskRegressor
from mtlsk.aggregators import MGDA, ConicGrad

RNG = np.random.default_rng(1)
X = RNG.normal(3.0, 5.0, size=(60, 4))
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, 100 * np.sin(X[:, 1])]
ALL = ["LinearScalarization", "MGDA", "CAGrad", "ConicGrad"]
FOLDS = KFold(2)


@pytest.fixture(autouse=True)
def one_thread():
    """Workers have one torch thread; the numbers agree to the bit at equal counts only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(**params):
    small = {"hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0, "lr": 0.02}
    return MultiTaskRegressor(**{**small, **params})


def search(estimator, grid, **options):
    return GridSearchCV(estimator, grid, **{"cv": FOLDS, "error_score": "raise", **options}).fit(
        X, Y
    )


def scores(fitted):
    """Return the test scores of a search, (candidates, folds x metrics), times left out."""
    kept = sorted(n for n in fitted.cv_results_ if n.startswith("split"))
    return np.stack([fitted.cv_results_[n] for n in kept], axis=1)


# ---- pipelines


def test_pipeline_is_the_steps_by_hand():
    pipeline = make_pipeline(StandardScaler(), make()).fit(X, Y)
    scaled = StandardScaler().fit_transform(X)
    by_hand = make().fit(scaled, Y).predict(scaled)
    assert np.array_equal(pipeline.predict(X), by_hand)
    again = clone(pipeline).fit(X, Y)
    assert again is not pipeline
    assert np.array_equal(again.predict(X), by_hand)


@pytest.mark.parametrize("y", [Y, Y[:, :1], Y[:, 0]], ids=["2d", "column", "1d"])
def test_transformed_target_is_the_steps_by_hand(y):
    model = TransformedTargetRegressor(make(), transformer=StandardScaler()).fit(X, y)
    scaler = StandardScaler().fit(y.reshape(len(y), -1))
    inner = make().fit(X, scaler.transform(y.reshape(len(y), -1)).reshape(y.shape))
    by_hand = scaler.inverse_transform(inner.predict(X).reshape(len(y), -1))
    np.testing.assert_allclose(model.predict(X).reshape(len(y), -1), by_hand)
    assert model.predict(X).shape == y.shape
    assert np.array_equal(clone(model).fit(X, y).predict(X), model.predict(X))


def test_nested_parameters_reach_the_net():
    pipeline = Pipeline([("scale", StandardScaler()), ("net", make())])
    model = TransformedTargetRegressor(pipeline, transformer=StandardScaler())
    model.set_params(regressor__net__aggregator="ConicGrad", regressor__net__aggregator__c=0.3)
    live = model.fit(X, Y).regressor_[-1].aggregator_
    assert type(live) is ConicGrad
    assert live.c == 0.3
    model.set_params(regressor__net__aggregator="MGDA")
    assert not [n for n in model.get_params() if "aggregator__" in n]
    assert type(model.fit(X, Y).regressor_[-1].aggregator_) is MGDA


# ---- cross-validation


def test_cross_validate_with_all_scorers():
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), make()), transformer=StandardScaler()
    )
    results = cross_validate(
        model, X, Y, scoring=SCORERS, cv=FOLDS, error_score="raise", return_estimator=True
    )
    for name, scorer in SCORERS.items():
        by_hand = [
            scorer(fitted, X[test], Y[test])
            for fitted, (_, test) in zip(results["estimator"], FOLDS.split(X), strict=True)
        ]
        assert results[f"test_{name}"].tolist() == by_hand
        assert np.isfinite(by_hand).all()
    for fitted, (train, _) in zip(results["estimator"], FOLDS.split(X), strict=True):
        y = StandardScaler().fit_transform(Y[train])
        by_hand = make_pipeline(StandardScaler(), make()).fit(X[train], y)
        np.testing.assert_allclose(fitted.regressor_.predict(X), by_hand.predict(X), rtol=1e-5)


# ---- searches


def test_multimetric_search_refits_for_the_worst_task():
    fitted = search(
        make_pipeline(StandardScaler(), make()),
        {"multitaskregressor__lr": [1e-4, 0.05], "multitaskregressor__aggregator": ["MGDA"]},
        scoring=SCORERS,
        refit="worst_r2",
    )
    means = fitted.cv_results_["mean_test_worst_r2"]
    assert fitted.best_index_ == int(np.argmax(means))
    assert means[0] != means[1]
    chosen = fitted.cv_results_["params"][fitted.best_index_]
    assert fitted.best_estimator_[-1].lr == chosen["multitaskregressor__lr"]
    for name in SCORERS:
        assert np.isfinite(fitted.cv_results_[f"mean_test_{name}"]).all()
    by_hand = clone(fitted.best_estimator_).fit(X, Y)
    assert np.array_equal(fitted.predict(X), by_hand.predict(X))


GRIDS = {
    "aggregators": {"aggregator": ALL},
    "with their parameters": [
        {"aggregator": ["ConicGrad"], "aggregator__c": [0.25, 0.5, 0.75]},
        {"aggregator": ["MGDA"]},
    ],
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_serial_and_parallel_searches_agree_to_the_bit(grid):
    options = {"scoring": SCORERS, "refit": "worst_r2"}
    serial = search(make(), grid, **options)
    parallel = search(make(), grid, n_jobs=2, **options)
    assert np.array_equal(scores(serial), scores(parallel))
    assert np.isfinite(scores(serial)).all()
    assert serial.best_params_ == parallel.best_params_
    assert np.array_equal(serial.predict(X), parallel.predict(X))
    assert len(np.unique(scores(serial).round(9), axis=0)) == 4  # four different candidates


def test_a_search_equals_the_same_nets_by_hand():
    fitted = search(make(), GRIDS["with their parameters"], scoring=SCORERS, refit=False)
    for i, params in enumerate(fitted.cv_results_["params"]):
        for fold, (train, test) in enumerate(FOLDS.split(X)):
            net = make(**params).fit(X[train], Y[train])
            by_hand = SCORERS["worst_r2"](net, X[test], Y[test])
            assert fitted.cv_results_[f"split{fold}_test_worst_r2"][i] == by_hand


def test_a_base_with_aggregator_parameters_is_searched_over_others():
    base = make(aggregator="ConicGrad", aggregator__c=0.25)
    fitted = search(base, {"aggregator": ALL})
    plain = search(make(), {"aggregator": ALL})
    # a new aggregator comes with its own defaults: c=.25 is dropped for ConicGrad too
    assert np.array_equal(scores(fitted), scores(plain))
    assert base.get_params()["aggregator__c"] == 0.25
    over_c = search(base, {"aggregator__c": [0.5, 0.9]})
    other = search(make(aggregator="ConicGrad"), {"aggregator__c": [0.5, 0.9]})
    assert np.array_equal(scores(over_c), scores(other))


def test_specs_of_every_kind_can_be_searched():
    kinds = ["conicgrad", {"name": "ConicGrad", "c": 0.5}, ConicGrad, ConicGrad(c=0.5)]
    fitted = search(make(), {"aggregator": kinds})
    assert len(np.unique(scores(fitted), axis=0)) == 1
    assert not np.array_equal(scores(fitted)[0], scores(search(make(), {"lr": [0.02]}))[0])


def test_controllers_optimizers_and_scales_can_be_searched():
    grid = [
        {"controller": [None, "APT"]},
        {"optimizer": ["SGD"], "optimizer__momentum": [0.5, 0.9], "lr": [1e-4]},
        {"task_scale": [None, [2, 0.5, 0.5]]},
        {"update_norm": ["native", "mean"], "aggregator": ["MGDA"]},
    ]
    fitted = search(make_pipeline(StandardScaler(), make(batch_size=10)), _prefixed(grid))
    found = scores(fitted)
    assert np.isfinite(found).all()
    assert np.array_equal(found[0], found[4])  # controller=None and task_scale=None: the base
    assert len(np.unique(found.round(9), axis=0)) == 7


def _prefixed(grids):
    return [{f"multitaskregressor__{n}": v for n, v in grid.items()} for grid in grids]


def test_a_wrong_candidate_says_so():
    with pytest.raises(ValueError, match="MGDA has no parameter 'c'"):
        search(make(), {"aggregator": ["MGDA"], "aggregator__c": [0.5]})


def test_randomized_search_with_a_fitted_base_leaves_it_alone():
    base = make(aggregator="MGDA").fit(X, Y)
    before = base.predict(X)
    RandomizedSearchCV(
        base, {"aggregator": ALL, "lr": [0.01, 0.02]}, n_iter=2, cv=FOLDS, random_state=0
    ).fit(X, Y)
    assert np.array_equal(base.predict(X), before)
    assert type(base.aggregator_) is MGDA
