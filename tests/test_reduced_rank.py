"""ReducedRankRegressor and RandomizedFront: closed forms against descent, draws against means."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from mtlsk import SKOPS_TRUSTED, RandomizedFront, ReducedRankRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 5)) + 1.0
Y = X @ RNG.normal(size=(5, 4)) + 0.3 * RNG.normal(size=(90, 4)) - 2.0


@parametrize_with_checks(
    [ReducedRankRegressor(), ReducedRankRegressor(fit_intercept=False), RandomizedFront()]
)
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


def errors(model):
    return ((model.predict(X) - Y) ** 2).mean(axis=0)


def test_full_rank_is_least_squares():
    model = ReducedRankRegressor(rank=4, weights=[1, 2, 3, 4]).fit(X, Y)
    plain = LinearRegression().fit(X, Y)
    np.testing.assert_allclose(model.coef_, plain.coef_, atol=1e-9)
    np.testing.assert_allclose(model.intercept_, plain.intercept_, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_descent_finds_a_smaller_weighted_loss(rank):
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    model = ReducedRankRegressor(rank, weights).fit(X, Y)
    x, y = torch.tensor(X - X.mean(0)), torch.tensor(Y - Y.mean(0))
    generator = torch.Generator().manual_seed(0)
    W, A = (
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((5, rank), (rank, 4))
    )
    optimizer = torch.optim.LBFGS([W, A], max_iter=400, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = ((x @ W @ A - y) ** 2).mean(0) @ torch.tensor(weights)
        value.backward()
        return value

    optimizer.step(loss)
    assert errors(model) @ weights == pytest.approx(float(loss().detach()), rel=1e-6)


def test_attributes_agree_with_each_other_and_with_the_predictions():
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = ReducedRankRegressor(2, [3, 1, 1, 1]).fit(frame, Y)
    np.testing.assert_allclose(model.coef_, (model.shared_ @ model.heads_).T)
    centred = X - X.mean(0)
    np.testing.assert_allclose(
        (centred @ model.shared_).T @ centred @ model.shared_, np.eye(2), atol=1e-9
    )
    squares = ((Y - Y.mean(0)) ** 2).sum(0)
    found = ((model.predict(frame) - Y) ** 2).mean(axis=0)
    np.testing.assert_allclose(found, (squares - model.explained_) / len(X))
    assert list(model.feature_names_in_) == list("abcde")
    assert model.weights_.tolist() == pytest.approx([0.5, 1 / 6, 1 / 6, 1 / 6])


def test_a_task_without_weight_gets_what_the_others_features_give():
    model = ReducedRankRegressor(1, [1, 0, 0, 0]).fit(X, Y)
    alone = LinearRegression().fit(X, Y[:, 0])
    np.testing.assert_allclose(model.predict(X)[:, 0], alone.predict(X))
    assert np.isfinite(model.coef_).all()
    assert errors(model)[1] < ((Y[:, 1] - Y[:, 1].mean()) ** 2).mean()


def test_more_tasks_than_rows():
    wide = RNG.normal(size=(6, 9))
    model = ReducedRankRegressor(9).fit(X[:6], wide)
    np.testing.assert_allclose(model.predict(X[:6]), wide, atol=1e-8)
    assert ReducedRankRegressor(2).fit(X[:6], wide).coef_.shape == (9, 5)


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"rank": 0}, "rank=0 is not allowed; use a whole number from 1 to 4"),
        ({"rank": 5}, "rank=5 is not allowed"),
        ({"rank": 1.5}, "rank=1.5 is not allowed"),
        ({"rank": True}, "rank=True is not allowed"),
        ({"weights": [1, 2]}, r"weights has shape \(2,\) for 4 tasks"),
        ({"weights": [1, -1, 1, 1]}, "weights=.* is not allowed; use finite numbers"),
        ({"weights": [0, 0, 0, 0]}, "one of them above 0"),
        ({"weights": "equal"}, "weights='equal' is not allowed"),
    ],
)
def test_what_is_refused(params, line):
    with pytest.raises(ValueError, match=line) as caught:
        ReducedRankRegressor(**params).fit(X, Y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cls", [ReducedRankRegressor, RandomizedFront])
def test_missing_labels_are_refused(cls):
    y = Y.copy()
    y[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        cls().fit(X, y)


# ---- drawing


@pytest.fixture(scope="module")
def conflict():
    """Three tasks at 120 degrees to each other: the balanced rank-1 model is far below the hull."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    angles = 2 * np.pi * np.arange(3) / 3 + 0.1
    y = x[:, :2] @ np.array([np.cos(angles), np.sin(angles)]) - 0.9 * x[:, 2:]
    return x, y + 0.1 * rng.normal(size=y.shape)


def test_the_mixture_is_better_on_every_task_by_the_same_share(conflict):
    x, y = conflict
    front = RandomizedFront(rank=2, random_state=0).fit(x, y)
    assert 1 < len(front.estimators_) <= 3
    assert front.probabilities_.sum() == pytest.approx(1)
    assert front.gap_ < -0.005
    gain = front.point_mse_ - front.expected_mse_
    G = front.estimators_[0].gram_.diagonal()
    assert (gain >= -front.gap_ * G / len(x) - 1e-7).all()
    assert front.point_mse_.max() == pytest.approx(front.point_mse_.min())


def test_the_errors_of_the_draws_are_those_expected(conflict):
    x, y = conflict
    front = RandomizedFront(rank=2).fit(x, y)
    each = np.array([((m.predict(x) - y) ** 2).mean(0) for m in front.estimators_])
    np.testing.assert_allclose(front.probabilities_ @ each, front.expected_mse_, rtol=1e-9)
    drawn = [((front.predict(x) - y) ** 2).mean(0) for _ in range(300)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), front.expected_mse_, rtol=0.03)
    again = front.set_params(random_state=3)
    assert (again.predict(x) == again.predict(x)).all()
    counts = np.bincount(front.draw(20_000)) / 20_000
    np.testing.assert_allclose(counts, front.probabilities_, atol=0.02)


@pytest.mark.parametrize("estimator", [ReducedRankRegressor(2), RandomizedFront(2, random_state=0)])
def test_skops_files_hold_nothing_that_is_not_trusted(estimator):
    skops = pytest.importorskip("skops.io")
    estimator.fit(X, Y)
    content = skops.dumps(estimator)
    again = skops.loads(content, trusted=SKOPS_TRUSTED)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))


def test_a_point_given_by_its_errors(conflict):
    x, y = conflict
    balanced = RandomizedFront(rank=2).fit(x, y)
    worse = balanced.point_mse_ + 0.05
    front = RandomizedFront(rank=2, point=worse.tolist()).fit(x, y)
    assert front.gap_ < balanced.gap_
    assert (front.expected_mse_ < worse).all()
    with pytest.raises(ValueError, match="is below what rank 2 reaches"):
        RandomizedFront(rank=2, point=[0.0, 0.0, 0.0]).fit(x, y)
    for wrong in ("best", [1.0], [np.nan, 1, 1], [-1, 1, 1]):
        with pytest.raises(ValueError, match=r"point=.* is not allowed; use 'balanced' or"):
            RandomizedFront(rank=2, point=wrong).fit(x, y)
