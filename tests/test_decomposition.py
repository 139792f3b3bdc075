"""Decompositions of an objective into tasks of a prescribed conflict, alone and in a net."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from mtlsk import MultiTaskRegressor
from mtlsk.decomposition import (
    cosine_of_condition_number,
    decompose_tasks,
    equal_cosines,
    make_tasks_with_cosine,
    orthogonalize_tasks,
)
from mtlsk.estimators import DecomposedRegressor
from mtlsk.gramian import condition_number, cosines

RNG = np.random.default_rng(2)
X = RNG.normal(size=(60, 4))
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(X[:, 1]), X[:, 2] * X[:, 3]]


def gramian(n_tasks, seed=0, scales=None):
    J = torch.randn(n_tasks, 12, generator=torch.Generator().manual_seed(seed)).double()
    J = J if scales is None else torch.tensor(scales, dtype=torch.float64)[:, None] * J
    return J @ J.T


def make(cls=MultiTaskRegressor, **params):
    small = {"hidden_layer_sizes": (8,), "activation": "tanh", "dtype": "float64"}
    return cls(**small, random_state=0, max_epochs=2, batch_size=-1, **params)


@pytest.mark.parametrize("n_tasks", [2, 3, 7])
@pytest.mark.parametrize("kappa", [1.0, 3.0, 100.0, 1e3])
@pytest.mark.parametrize("conflict", [True, False])
def test_the_condition_number_is_the_prescribed_one(n_tasks, kappa, conflict):
    G = gramian(n_tasks, scales=np.logspace(0, 2, n_tasks).tolist())
    T = make_tasks_with_cosine(G, condition_number=kappa, conflict=conflict)
    mixed = T @ G @ T.T
    assert condition_number(mixed) == pytest.approx(kappa, rel=1e-8)
    torch.testing.assert_close(T.sum(0), torch.ones(n_tasks).double())
    off = cosines(mixed)[~torch.eye(n_tasks, dtype=torch.bool)]
    torch.testing.assert_close(off, off[0].expand_as(off))
    assert kappa == 1 or (float(off[0]) < 0) == conflict


@pytest.mark.parametrize("cosine", [-0.45, -0.1, 0.0, 0.9])
def test_the_cosine_is_the_prescribed_one(cosine):
    G = gramian(3)
    T = make_tasks_with_cosine(G, cosine)
    torch.testing.assert_close(cosines(T @ G @ T.T), equal_cosines(3, cosine))


def test_orthogonal_tasks_have_equal_lengths_that_add_up():
    G = gramian(4)
    T = orthogonalize_tasks(G)
    torch.testing.assert_close(T @ G @ T.T, G.sum() / 4 * torch.eye(4).double())


def test_any_gramian_up_to_its_scale():
    G, C = gramian(4), gramian(4, seed=1)
    T = decompose_tasks(G, C)
    torch.testing.assert_close(T @ G @ T.T, C * (G.sum() / C.sum()))
    torch.testing.assert_close(T.sum(0), torch.ones(4).double())


def test_tasks_that_are_so_already_stay():
    G = 5 * equal_cosines(4, -0.2)
    torch.testing.assert_close(make_tasks_with_cosine(G, -0.2), torch.eye(4).double())


def test_no_other_decomposition_moves_the_gradients_less():
    J = torch.randn(4, 9, generator=torch.Generator().manual_seed(3)).double()
    G = J @ J.T
    T = make_tasks_with_cosine(G, 0.3)
    least = (T @ J - J).norm()
    target = T @ G @ T.T
    root, total = torch.linalg.cholesky(target), torch.ones(4).double()
    for seed in range(50):  # others: rotations that leave the sum where it is
        S = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).double()
        S = 0.05 * (S - S.T)  # near ones: the least is so among them too
        u = root.T @ total
        P = torch.eye(4).double() - torch.outer(u, u) / (u @ u)
        other = root @ torch.linalg.matrix_exp(P @ S @ P) @ torch.linalg.inv(root) @ T
        torch.testing.assert_close(other @ G @ other.T, target)
        torch.testing.assert_close(other.sum(0), total)
        assert (other @ J - J).norm() >= least - 1e-9


@pytest.mark.parametrize(("kappa", "n_tasks", "conflict"), [(1.0, 3, True), (50.0, 5, False)])
def test_cosine_of_a_condition_number(kappa, n_tasks, conflict):
    C = equal_cosines(n_tasks, cosine_of_condition_number(kappa, n_tasks, conflict=conflict))
    assert float(torch.linalg.cond(C)) == pytest.approx(kappa)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: equal_cosines(3, -0.5), "cosine=-0.5 is not allowed.*above -0.5 and below 1"),
        (lambda: equal_cosines(1, 0.0), "there is 1 task"),
        (lambda: make_tasks_with_cosine(torch.ones(1, 1), condition_number=2.0), "is 1 task"),
        (lambda: make_tasks_with_cosine(gramian(2)), "either cosine"),
        (lambda: make_tasks_with_cosine(gramian(2), 0.1, condition_number=2.0), "either cosine"),
        (lambda: make_tasks_with_cosine(gramian(2), condition_number=0.5), "=0.5 is not allowed"),
        (lambda: orthogonalize_tasks(torch.ones(2, 2)), "is singular"),
        (lambda: orthogonalize_tasks(torch.full((2, 2), torch.nan)), "is not finite"),
        (lambda: decompose_tasks(gramian(2), gramian(3)), r"\(2, 2\) and the target \(3, 3\)"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("kappa", [1.0, 1e3])
def test_a_net_starts_at_the_prescribed_condition_number(kappa):
    G, losses = make().initialize_for(X, Y).task_gramian(X, Y)
    mixing = make_tasks_with_cosine(G, condition_number=kappa).tolist()
    net = make(DecomposedRegressor, mixing=mixing).initialize_for(X, Y)
    mixed, parts = net.task_gramian(X, Y)
    assert condition_number(mixed) == pytest.approx(kappa, rel=1e-6)
    assert float(parts.sum()) == pytest.approx(float(losses.sum()))


def test_equal_weights_train_the_same_net_and_mgda_another():
    G, _ = make().initialize_for(X, Y).task_gramian(X, Y)
    mixing = make_tasks_with_cosine(G, condition_number=100.0).tolist()
    plain = make().fit(X, Y).predict(X)
    np.testing.assert_allclose(make(DecomposedRegressor, mixing=mixing).fit(X, Y).predict(X), plain)
    mgda = make(DecomposedRegressor, mixing=mixing, aggregator="MGDA").fit(X, Y)
    other = make(aggregator="MGDA").fit(X, Y)
    assert not np.allclose(mgda.predict(X), other.predict(X))
    bare = make(DecomposedRegressor, aggregator="MGDA").fit(X, Y)
    np.testing.assert_allclose(bare.predict(X), other.predict(X), rtol=1e-9)


def test_it_is_cloned_pickled_and_searched():
    mixing = orthogonalize_tasks(gramian(4)).tolist()
    net = make(DecomposedRegressor, mixing=mixing)
    assert clone(net).mixing == mixing
    fitted = clone(net).fit(X, Y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(
        again.partial_fit(X, Y).predict(X), fitted.partial_fit(X, Y).predict(X)
    )
    search = GridSearchCV(net, {"mixing": [None, mixing], "aggregator": ["MGDA"]}, cv=2).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("mixing", [[[1.0]], [[float("nan")] * 4] * 4])
def test_a_mixing_that_does_not_fit(mixing):
    with pytest.raises(ValueError, match=r"mixing has shape .* for 4 targets"):
        make(DecomposedRegressor, mixing=mixing).fit(X, Y)


def test_missing_labels_are_refused():
    holes = Y.copy()
    holes[3, 1] = np.nan
    mixing = np.eye(4).tolist()
    with pytest.raises(ValueError, match="NaN: mixtures of losses need every label"):
        make(DecomposedRegressor, mixing=mixing).fit(X, holes)
