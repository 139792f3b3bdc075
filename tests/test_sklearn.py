"""scikit-learn's own checks, and what its users expect beside them."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.metrics import accuracy_score, make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from mtlsk import MultiTaskClassifier, MultiTaskNet, MultiTaskRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(2 * X[:, 1])]
LABELS = np.c_[X[:, 0] > 0, np.digitize(X[:, 1], [-0.5, 0.5])]
QUICK = {"hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0}
FRAME = pd.DataFrame(X, columns=["mass", "length", "speed", "angle"])

SHORT = {"max_epochs": 25, "lr": 0.01}  # the defaults pass too, in four times the time

# the checks fit classes that are there once, on purpose
one_class = pytest.mark.filterwarnings("ignore:task '.*' has one class only:UserWarning")


@one_class
@parametrize_with_checks(
    [
        MultiTaskRegressor(dtype="float64", **SHORT),
        MultiTaskClassifier(dtype="float64", **SHORT),
        MultiTaskNet(tasks="regression", dtype="float64", max_epochs=5),
    ]
)
def test_all_checks_in_float64(estimator, check):
    check(estimator)


ROUNDING = {
    f"check_sample_weight_equivalence_on_{kind}_data": "the checks want 1e-7, which is rounding"
    for kind in ("dense", "sparse")
}


@one_class
@parametrize_with_checks(
    [MultiTaskRegressor(**SHORT), MultiTaskClassifier(**SHORT)],
    expected_failed_checks=lambda estimator: ROUNDING,
)
def test_all_checks_but_two_in_float32(estimator, check):
    check(estimator)


@one_class
@pytest.mark.parametrize("cls", [MultiTaskRegressor, MultiTaskClassifier])
def test_no_check_is_skipped_but_for_what_the_environment_lacks(cls):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {check.func.__name__ for _, check in estimator_checks_generator(cls())}
    assert names >= {
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weights_not_overwritten",
        "check_estimator_sparse_matrix",
        "check_fit2d_1feature",
        "check_dict_unchanged",
        "check_n_features_in_after_fitting",
    }


def test_tags():
    regressor, classifier = get_tags(MultiTaskRegressor()), get_tags(MultiTaskClassifier())
    assert regressor.target_tags.multi_output
    assert classifier.target_tags.multi_output
    assert regressor.input_tags.sparse
    assert is_regressor(MultiTaskRegressor())
    assert is_classifier(MultiTaskClassifier())
    assert not is_regressor(MultiTaskNet())
    assert not is_classifier(MultiTaskNet())


def test_what_an_estimator_has_before_and_after_fit():
    for cls, y in ((MultiTaskRegressor, Y), (MultiTaskClassifier, LABELS)):
        net = cls(**QUICK)
        assert not [n for n in vars(net) if n.endswith("_") and not n.startswith("_")]
        net.fit(FRAME, y)
        assert list(net.feature_names_in_) == list(FRAME.columns)
        assert (net.n_features_in_, net.initialized_) == (4, True)
        fresh = clone(net)
        assert not fresh.initialized_
        assert fresh.history_ is None
    assert not hasattr(MultiTaskRegressor(), "predict_proba")
    assert not hasattr(MultiTaskRegressor().fit(X, Y), "decision_function")
    assert hasattr(MultiTaskClassifier(), "predict_proba")
    assert hasattr(MultiTaskNet(tasks={"a": "regression", "b": "binary"}), "predict_proba")
    assert not hasattr(MultiTaskNet(tasks={"a": "regression"}), "predict_proba")


def test_other_feature_names_are_refused():
    net = MultiTaskRegressor(**QUICK).fit(FRAME, Y)
    with pytest.raises(ValueError, match="feature names should match"):
        net.predict(FRAME[["length", "mass", "speed", "angle"]])


def test_pipelines_may_hand_on_frames():
    pipe = make_pipeline(StandardScaler(), MultiTaskClassifier(**QUICK)).set_output(
        transform="pandas"
    )
    pipe.fit(FRAME, LABELS)
    assert list(pipe[-1].feature_names_in_) == list(FRAME.columns)
    assert pipe.predict(FRAME).shape == LABELS.shape


def test_html_and_text_show_the_parameters_that_differ():
    net = MultiTaskRegressor((32,), "ConicGrad", aggregator__c=0.25, dtype="float64")
    html = net._repr_html_()
    for part in ("MultiTaskRegressor", "aggregator__c", "ConicGrad", "float64"):
        assert part in html
    text = repr(net)
    assert re.sub(r"\s+", " ", text) == (
        "MultiTaskRegressor(aggregator='ConicGrad', aggregator__c=0.25, dtype='float64', "
        "hidden_layer_sizes=(32,))"
    )


# ---- sample weights through scikit-learn


def test_metadata_routing_brings_weights_to_the_net():
    weights = RNG.integers(1, 5, len(X)).astype(float)
    with config_context(enable_metadata_routing=True):
        net = MultiTaskRegressor(**QUICK).set_fit_request(sample_weight=True)
        net.set_score_request(sample_weight=True)
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), net)
        pipe.fit(X, Y, sample_weight=weights)
        alone = MultiTaskRegressor(**QUICK).fit(
            StandardScaler().fit_transform(X), Y, sample_weight=weights
        )
        assert np.array_equal(pipe.predict(X), alone.predict(StandardScaler().fit_transform(X)))
        search = GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=KFold(2))
        search.fit(X, Y, sample_weight=weights)
        own = []
        for train, test in KFold(2).split(X):
            fitted = clone(net).set_params(lr=1e-2)
            fitted.fit(X[train], Y[train], sample_weight=weights[train])
            own.append(fitted.score(X[test], Y[test], sample_weight=weights[test]))
        assert search.cv_results_["mean_test_score"][1] == pytest.approx(np.mean(own), rel=1e-12)


# ---- other kinds of arrays


def test_tensors_are_taken_as_arrays():
    net = MultiTaskRegressor(**QUICK).fit(torch.tensor(X), torch.tensor(Y))
    same = MultiTaskRegressor(**QUICK).fit(X, Y)
    assert np.array_equal(net.predict(torch.tensor(X)), same.predict(X))
    assert net.score(torch.tensor(X), torch.tensor(Y, requires_grad=True)) == same.score(X, Y)


def test_tensors_are_taken_under_scikit_learn_s_array_api_dispatch():
    with config_context(array_api_dispatch=True):
        net = MultiTaskRegressor(**QUICK).fit(torch.tensor(X), torch.tensor(Y))
        prediction = net.predict(torch.tensor(X))
    assert isinstance(prediction, np.ndarray)
    assert np.array_equal(prediction, MultiTaskRegressor(**QUICK).fit(X, Y).predict(X))


class OnlyDlpack:
    """An array of another library: nothing but the exchange protocol and a shape."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape

    def __dlpack__(self, **kwargs):
        return self.values.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def test_arrays_of_other_libraries_are_taken_by_dlpack():
    net = MultiTaskRegressor(**QUICK).fit(OnlyDlpack(X), OnlyDlpack(Y))
    assert np.array_equal(net.predict(X), MultiTaskRegressor(**QUICK).fit(X, Y).predict(X))


# ---- model selection


def test_classes_are_stratified_and_scored_by_accuracy():
    y = np.where(X[:, 0] > 0.8, "rare", "usual")
    net = MultiTaskClassifier(**QUICK)
    found = cross_validate(net, X, y, cv=3, scoring=["accuracy", "roc_auc", "neg_log_loss"])
    own = []
    for train, test in StratifiedKFold(3).split(X, y):
        prediction = clone(net).fit(X[train], y[train]).predict(X[test])
        own.append(accuracy_score(y[test], prediction))
    assert found["test_accuracy"].tolist() == own
    assert found["test_roc_auc"].min() > 0


def test_multi_label_goes_through_sklearn_s_scorers():
    labels = np.c_[X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 0].astype(int)
    net = MultiTaskClassifier(**QUICK)
    found = cross_validate(net, X, labels, cv=3, scoring=["accuracy", "f1_macro", "roc_auc"])
    assert np.isfinite([found[f"test_{n}"] for n in ("accuracy", "f1_macro", "roc_auc")]).all()


def test_a_grid_over_aggregators_of_a_classifier():
    search = GridSearchCV(
        MultiTaskClassifier(**QUICK), {"aggregator": ["MGDA", "CAGrad"]}, cv=KFold(2), n_jobs=2
    ).fit(X, LABELS)
    serial = GridSearchCV(
        MultiTaskClassifier(**QUICK), {"aggregator": ["MGDA", "CAGrad"]}, cv=KFold(2)
    ).fit(X, LABELS)
    both = search.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"]
    np.testing.assert_allclose(*both, atol=1e-6)


def test_weighted_metrics_of_scikit_learn_agree_with_score():
    weights = RNG.uniform(0.1, 2.0, len(X))
    net = MultiTaskRegressor(**QUICK).fit(X, Y)
    wanted = r2_score(Y, net.predict(X), sample_weight=weights)
    assert net.score(X, Y, weights) == pytest.approx(wanted, rel=1e-9)
    assert make_scorer(r2_score)(net, X, Y) == pytest.approx(net.score(X, Y), rel=1e-9)
    one = MultiTaskClassifier(**QUICK).fit(X, LABELS[:, 1])
    wanted = accuracy_score(LABELS[:, 1], one.predict(X), sample_weight=weights)
    assert one.score(X, LABELS[:, 1], weights) == pytest.approx(wanted, rel=1e-9)
