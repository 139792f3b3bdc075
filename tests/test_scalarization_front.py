"""ScalarizationFront: its parameters, its front, its choices, and scikit-learn's tools."""

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtlsk import SCORERS, DivergenceError, MultiTaskRegressor, ScalarizationFront
from mtlsk.estimators.scalarization_front import undominated
from mtlsk.pareto import non_dominated

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2].astype(np.float32)
FRAME = pd.DataFrame(X, columns=list("abcd"))
TARGETS = pd.DataFrame(Y, columns=["load", "tau 1"])
NET = MultiTaskRegressor((8,), max_epochs=3, batch_size=16, lr=0.02, random_state=0)
WEIGHTS = [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.0, 1.0]]


@pytest.fixture
def one_thread():
    """Workers have one torch thread; the numbers agree to the bit at equal counts only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def front():
    return ScalarizationFront(NET, WEIGHTS).fit(FRAME, TARGETS)


def test_members_are_the_nets_fitted_one_by_one(front):
    assert np.array_equal(front.weights_, WEIGHTS)
    for w, member in zip(WEIGHTS, front.estimators_, strict=True):
        net = clone(NET).set_params(aggregator={"name": "LinearScalarization", "weights": w})
        net.fit(FRAME, TARGETS)
        np.testing.assert_allclose(member.predict(FRAME), net.predict(FRAME), atol=1e-5)
        again = clone(member).fit(FRAME, TARGETS)
        np.testing.assert_allclose(again.predict(FRAME), net.predict(FRAME), atol=1e-5)
        for name, scorer in SCORERS.items():
            wanted = scorer(net, FRAME, TARGETS)
            assert scorer(member, FRAME, TARGETS) == pytest.approx(wanted, rel=1e-3), name


def test_losses_and_front(front):
    for member, losses in zip(front.estimators_, front.losses_, strict=True):
        wanted = ((member.predict(FRAME) - Y) ** 2).mean(axis=0)
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    kept = np.flatnonzero(non_dominated(front.losses_))
    assert front.front_.index.tolist() == kept.tolist()
    columns = ["weight load", "weight tau 1", "loss load", "loss tau 1", "lr"]
    assert front.front_.columns.tolist() == columns
    assert np.array_equal(front.front_.iloc[:, :2], front.weights_[kept])
    assert np.array_equal(front.front_.iloc[:, 2:4], front.losses_[kept])
    assert front.front_.lr.tolist() == [0.02] * len(kept)
    assert front.best_index_ == front.losses_.max(axis=1).argmin()
    assert front.best_index_ in front.front_.index
    assert not front.diverged_.any()


def test_validation_data_give_the_losses():
    gaps = Y[40:].copy()
    gaps[::3, 0] = np.nan
    fitted = ScalarizationFront(NET, WEIGHTS).fit(X[:40], Y[:40], X_val=X[40:], y_val=gaps)
    trained = ScalarizationFront(NET, WEIGHTS).fit(X[:40], Y[:40])
    for p, member in enumerate(fitted.estimators_):
        wanted = np.nanmean((member.predict(X[40:]) - gaps) ** 2, axis=0)
        np.testing.assert_allclose(fitted.losses_[p], wanted, rtol=1e-5)
        assert np.array_equal(member.predict(X), trained.estimators_[p].predict(X))
    assert not np.allclose(fitted.losses_, trained.losses_)


@pytest.mark.parametrize(
    ("preference", "chosen"),
    [([1, 0], 0), ([8, 2], 0), ([1, 1], 1), ([3, 7], 2), ([0, 5], 3), (np.array([1e-9, 1]), 3)],
)
def test_a_preference_picks_the_nearest_weights(front, preference, chosen):
    assert front.choose(preference) == chosen
    member = front.estimators_[chosen]
    assert np.array_equal(front.predict(FRAME, preference), member.predict(FRAME))
    score = front.score(FRAME, TARGETS, preference=preference)
    assert score == member.score(FRAME, TARGETS)


def test_without_a_preference_the_smallest_worst_loss_answers(front):
    best = front.estimators_[front.best_index_]
    assert front.best_estimator_ is best
    assert np.array_equal(front.predict(FRAME), best.predict(FRAME))
    assert front.score(FRAME, TARGETS) == best.score(FRAME, TARGETS)
    for scorer in SCORERS.values():
        assert scorer(front, FRAME, TARGETS) == scorer(best, FRAME, TARGETS)


def test_weights_need_not_sum_to_one():
    fitted = ScalarizationFront(NET, [[1, 3], [6, 2]]).fit(X, Y)
    assert fitted.weights_.tolist() == [[1, 3], [6, 2]]
    assert fitted.choose([0.7, 0.3]) == 1


def test_a_number_of_members():
    two = ScalarizationFront(NET, 4).fit(X, Y)
    assert two.weights_[:, 0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert two.weights_.sum(axis=1).tolist() == [1.0] * 4
    wide = np.c_[Y, Y[:, :1]]
    drawn = [ScalarizationFront(NET, 5, random_state=s).fit(X, wide).weights_ for s in (0, 0, 1)]
    assert drawn[0][0].tolist() == pytest.approx([1 / 3] * 3)
    assert (drawn[0] >= 0).all()
    np.testing.assert_allclose(drawn[0].sum(axis=1), 1)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    own = [ScalarizationFront(NET, 5).fit(X, wide).weights_ for _ in range(2)]
    assert np.array_equal(*own)  # by the estimator's random_state
    assert ScalarizationFront(NET, 2).fit(X, Y[:, 0]).weights_.tolist() == [[1.0], [1.0]]


def test_random_state_seeds_nets_that_have_none():
    net = clone(NET).set_params(random_state=None)
    a, b = (ScalarizationFront(net, 2, random_state=4).fit(X, Y) for _ in range(2))
    wanted = ScalarizationFront(clone(NET).set_params(random_state=4), 2).fit(X, Y)
    assert np.array_equal(a.predict(X), b.predict(X))
    assert np.array_equal(a.predict(X), wanted.predict(X))
    free = ScalarizationFront(net, 2).fit(X, Y)  # all members start alike all the same
    assert len({m.seed_ for m in free.estimators_}) == 1


def test_learning_rates():
    one = ScalarizationFront(NET, WEIGHTS, lr=0.001).fit(X, Y)
    assert [m.lr for m in one.estimators_] == [0.001] * 4
    each = ScalarizationFront(NET, WEIGHTS, lr=[0.001, 0.01, 0.02, 0.03]).fit(X, Y)
    assert [m.lr for m in each.estimators_] == [0.001, 0.01, 0.02, 0.03]
    same = one.estimators_[0].predict(X)
    np.testing.assert_allclose(each.estimators_[0].predict(X), same, atol=1e-5)
    assert set(each.front_.lr) <= {0.001, 0.01, 0.02, 0.03}


def test_default_estimator_and_one_dimension():
    fitted = ScalarizationFront(weights=2, random_state=0)
    fitted.set_params(estimator=clone(NET)).fit(X, Y[:, 0])
    assert fitted.predict(X).shape == (60,)
    default = ScalarizationFront(weights=[[1.0]]).fit(X[:8], Y[:8, :1])
    assert default.estimators_[0].get_params()["hidden_layer_sizes"] == (64, 64)
    assert default.predict(X).shape == (60, 1)


def test_a_diverged_member_is_named_and_left_out():
    net = clone(NET).set_params(optimizer="SGD")
    bad = ScalarizationFront(net, WEIGHTS, lr=[0.01, 0.01, 1e30, 0.01])
    with pytest.warns(ConvergenceWarning, match=r"1 of 4 members .*: 2; .*lr=1e\+30") as found:
        bad.fit(X, Y)
    assert len(found) == 1
    assert "\n" not in str(found[0].message)
    assert bad.diverged_.tolist() == [False, False, True, False]
    assert bad.estimators_[2] is None
    assert np.isnan(bad.losses_[2]).all()
    assert 2 not in bad.front_.index
    assert bad.choose([2, 8]) != 2
    assert np.isfinite(bad.predict(X)).all()
    good = ScalarizationFront(net, WEIGHTS, lr=0.01).fit(X, Y)
    for p in (0, 1, 3):
        np.testing.assert_allclose(bad.losses_[p], good.losses_[p], rtol=1e-5)


def test_when_all_diverge_it_raises_and_keeps_what_it_had():
    fitted = ScalarizationFront(clone(NET), WEIGHTS).fit(X, Y)
    before = fitted.predict(X)
    fitted.set_params(estimator__optimizer="SGD", lr=1e30)
    with pytest.raises(DivergenceError, match=r"all 4 members diverged; the first: .*lr=1e\+30"):
        fitted.fit(X, Y)
    assert np.array_equal(fitted.predict(X), before)


WRONG = {
    "no members": ({"weights": 0}, "weights=0", "members >= 1"),
    "a bool": ({"weights": True}, "weights=True"),
    "half a member": ({"weights": 2.5}, "weights=2.5"),
    "a word": ({"weights": "even"}, "weights='even'"),
    "words": ({"weights": [["a", "b"]]}, "weights=", "numbers >= 0"),
    "ragged": ({"weights": [[1, 2], [1]]}, "weights=", "numbers >= 0"),
    "one row": ({"weights": [0.5, 0.5]}, "(2,)", "(P, K)"),
    "empty": ({"weights": np.empty((0, 2))}, "(0, 2)", "(P, K)"),
    "negative": ({"weights": [[1, -0.5]]}, "-0.5", ">= 0"),
    "not finite": ({"weights": [[1, np.inf]]}, "inf", "finite"),
    "missing": ({"weights": [[1, np.nan]]}, "nan", "finite"),
    "zeros": ({"weights": [[1, 1], [0, 0]]}, "zeros only in a row"),
    "wrong length": ({"weights": [[1, 1, 1]]}, "3 columns for 2 tasks"),
    "lr, wrong length": ({"lr": [0.1, 0.1]}, "lr has shape (2,)", "4 members"),
    "lr, negative": ({"lr": [0.1, 0.1, -1, 0.1]}, "lr=-1", ">= 0"),
    "lr, a word": ({"lr": "fast"}, "lr='fast'"),
    "lr, ragged": ({"lr": [[0.1, 0.2, 0.3, 0.4]]}, "lr has shape (1, 4)"),
    "lr twice": ({"lr": 0.1, "estimator__optimizer__lr": 0.1}, "lr once"),
    "weights twice": ({"estimator__aggregator__weights": [1, 1]}, "weights to the front"),
    "aggregator": ({"estimator__aggregator": "MGDA"}, "aggregator='MGDA'", "one by one"),
    "controller": ({"estimator__controller": "APT"}, "controller='APT'", "only None"),
    "pipeline": (
        {"estimator": make_pipeline(StandardScaler(), NET)},
        "a Pipeline",
        "put ScalarizationFront inside it",
    ),
    "device": ({"estimator__device": "cuda:77"}, "cuda:77", "not available"),
    "hidden": ({"estimator__hidden_layer_sizes": 8}, "hidden_layer_sizes=8"),
}


@pytest.mark.parametrize(("params", "words"), [(w[0], w[1:]) for w in WRONG.values()], ids=WRONG)
def test_what_is_wrong_is_one_line_and_changes_nothing(params, words):
    fitted = ScalarizationFront(clone(NET), WEIGHTS).set_params(**params)
    before = set(vars(fitted))
    with pytest.raises(ValueError, match=re.escape(words[0])) as error:
        fitted.fit(X, Y)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert set(vars(fitted)) == before


@pytest.mark.parametrize(
    ("preference", "words"),
    [
        ([1], "preference has 1 entries for 2 tasks"),
        ([1, -1], "preference holds -1.0"),
        ([0, 0], "preference holds zeros only"),
        ([np.nan, 1], "preference holds nan"),
        ("first", "preference='first' is not allowed"),
        ([[1, 0]], "preference has shape (1, 2)"),
    ],
)
def test_wrong_preferences(front, preference, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        front.predict(FRAME, preference)


def test_wrong_data(front):
    fresh = clone(front)
    with pytest.raises(ValueError, match="target y is None"):
        fresh.fit(X, None)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        fresh.fit(np.full_like(X, np.nan), Y)
    with pytest.raises(ValueError, match="give both or neither"):
        fresh.fit(X, Y, X_val=X)
    with pytest.raises(ValueError, match="y_val has 1 tasks, but y has 2"):
        fresh.fit(X, Y, X_val=X, y_val=Y[:, :1])
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    with pytest.raises(ValueError, match="feature names should match"):
        front.predict(FRAME.rename(columns={"a": "z"}))


def test_clone_pickle_and_repr(front):
    assert front.n_features_in_ == 4
    assert front.feature_names_in_.tolist() == list("abcd")
    assert not hasattr(clone(front), "weights_")
    assert clone(front).weights is not None
    assert repr(front).startswith("ScalarizationFront(estimator=MultiTaskRegressor(")
    again = pickle.loads(pickle.dumps(front))
    assert np.array_equal(again.predict(FRAME, [1, 0]), front.predict(FRAME, [1, 0]))
    member = pickle.loads(pickle.dumps(front.estimators_[1]))
    assert np.array_equal(member.predict(FRAME), front.estimators_[1].predict(FRAME))


def test_the_estimator_given_and_the_generators_are_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), set(vars(NET))  # noqa: NPY002
    ScalarizationFront(NET, WEIGHTS).fit(X, Y)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert set(vars(NET)) == before[2]
    assert not NET.initialized_


def test_inside_pipelines():
    front = ScalarizationFront(NET, WEIGHTS)
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), front), transformer=StandardScaler()
    ).fit(FRAME, TARGETS.astype(float))
    assert model.predict(FRAME).shape == (60, 2)
    for scorer in SCORERS.values():
        assert np.isfinite(scorer(model, FRAME, TARGETS))
    pipeline = make_pipeline(StandardScaler(), front).fit(X, Y)
    assert pipeline.predict(X, preference=[1, 0]).shape == (60, 2)


def test_grid_search_serial_and_parallel(one_thread):
    grid = {"estimator__lr": [0.01, 0.05], "weights": [2, WEIGHTS]}
    fits = [
        GridSearchCV(
            ScalarizationFront(NET), grid, scoring=SCORERS, refit="worst_r2", cv=KFold(2), n_jobs=n
        ).fit(X, Y)
        for n in (1, 2)
    ]
    scores = [f.cv_results_["mean_test_worst_r2"] for f in fits]
    assert np.array_equal(*scores)
    assert len(np.unique(scores[0].round(9))) == 4
    assert np.array_equal(fits[0].predict(X), fits[1].predict(X))


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ScalarizationFront(NET, 3).fit(FRAME, TARGETS).predict(FRAME)


def test_undominated_is_what_pareto_says():
    rng = np.random.default_rng(1)
    for _ in range(20):
        losses = rng.integers(0, 4, size=(12, 3)).astype(float)  # with ties and equal rows
        assert np.array_equal(undominated(losses), non_dominated(losses))
    assert undominated(np.array([[1.0, np.nan], [2.0, 2.0]])).tolist() == [False, True]
