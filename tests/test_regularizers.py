"""Regularizers: the multi-task path norm, its proximal step, and nets that train with it."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from mtlsk import MultiTaskRegressor
from mtlsk.modules import HardSharing
from mtlsk.regularizers import REGULARIZERS, PathNorm, balance, multitask_path_norm

cvxpy = pytest.importorskip("cvxpy")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = np.column_stack([np.abs(X[:, 0]), X[:, 1] - X[:, 2], np.maximum(X[:, 0], X[:, 1])])


def shallow(width=6, seed=0, **options):
    torch.manual_seed(seed)
    return HardSharing(3, 2, (width,), **options).double()


def make(**params):
    few = {"max_epochs": 3, "random_state": 0, "regularizer": "path_norm", "optimizer": "SGD"}
    return MultiTaskRegressor(**{"hidden_layer_sizes": (8,), "lr": 0.05, **few, **params})


def test_the_norm_by_hand():
    net = shallow(2)
    with torch.no_grad():
        net.trunk[0].weight.copy_(torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]]))
        net.head.weight.copy_(torch.tensor([[5.0, 0.0], [12.0, 2.0]]))
    assert float(multitask_path_norm(net).detach()) == pytest.approx(5 * 13 + 1 * 2)


@pytest.mark.parametrize("bias", [True, False])
def test_a_balanced_net_is_the_same_function_of_the_least_weight_decay(bias):
    net = shallow(bias=bias, skip=True)
    with torch.no_grad():
        net.head.weight[:, 0] = 0.0
    rows = torch.randn(20, 3, dtype=torch.float64)
    before, other = net(rows), copy.deepcopy(net)
    balance(net)
    torch.testing.assert_close(net(rows), before, rtol=0, atol=1e-10)
    w, v = net.trunk[0].weight, net.head.weight
    alive = v.norm(dim=0) > 0
    assert alive.sum() == 5
    assert (w.norm(dim=1) - v.norm(dim=0))[alive].abs().max() < 1e-10
    decay = 0.5 * (w.square().sum(1) + v.square().sum(0))[alive].sum()
    norm = multitask_path_norm(other)
    assert float(decay.detach()) == pytest.approx(float(norm.detach()), abs=1e-10)


def test_each_half_of_the_step_is_the_argmin_it_stands_for():
    net, lr, strength = shallow(), 0.3, 0.7
    w0, v0 = (p.detach().clone() for p in (net.trunk[0].weight, net.head.weight))
    PathNorm(strength).shrink(net, {net.trunk[0].weight: lr, net.head.weight: lr})
    w, v = (p.detach() for p in (net.trunk[0].weight, net.head.weight))
    for k in range(6):
        for new, old, factor in [(v[:, k], v0[:, k], w0[k].norm()), (w[k], w0[k], v[:, k].norm())]:
            x = cvxpy.Variable(len(old))
            cost = strength * float(factor) * cvxpy.norm(x) + cvxpy.sum_squares(x - old) / (2 * lr)
            cvxpy.Problem(cvxpy.Minimize(cost)).solve(solver="CLARABEL")
            np.testing.assert_allclose(new, x.value, atol=1e-6)


def test_neurons_become_exactly_zero_and_the_history_says_so():
    net = make(max_epochs=60, regularizer__strength=0.3).fit(X, Y)
    outer = net.module_.head.weight.norm(dim=0)
    row = net.history_[-1]
    assert row["neurons"] == int((outer > 0).sum()) < 8
    expected = 0.3 * float(multitask_path_norm(net.module_).detach())
    assert row["penalty"] == pytest.approx(expected, rel=1e-6)
    assert "penalty" not in make(regularizer=None).fit(X, Y).history_[-1]


def test_no_strength_is_no_regularizer():
    nets = [
        make(**way).fit(X, Y) for way in ({"regularizer": None}, {"regularizer__strength": 0.0})
    ]
    np.testing.assert_array_equal(*(net.predict(X) for net in nets))


def optimum(x, Y, strength):
    """The least mean loss + strength * norm over all functions of one feature, by the values."""
    n, k = Y.shape
    order = np.argsort(x)
    x, Y = x[order], Y[order]
    f = cvxpy.Variable((n, k))
    slopes = cvxpy.multiply(1 / np.diff(x)[:, None], f[1:] - f[:-1])
    norm = cvxpy.sum(cvxpy.norm(slopes[1:] - slopes[:-1], axis=1))
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(f - Y) / (n * k) + strength * norm))
    return problem.solve(solver="CLARABEL")


@pytest.mark.parametrize("k", [1, 2])
def test_training_reaches_the_convex_optimum_on_five_points(k):
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    Y = np.array([[0.0, 1.0], [1.0, 0.5], [-0.5, 0.0], [0.5, -1.0], [0.0, 0.5]])[:, :k]
    strength = 0.02
    torch.manual_seed(0)
    net = HardSharing(1, k, (40,), skip=True).double()
    rows, labels = torch.tensor(x)[:, None], torch.tensor(Y)
    regularizer, rates = PathNorm(strength), dict.fromkeys(net.parameters(), 0.1)
    for _ in range(3000):  # gradient descent in full, a proximal step after each
        gradients = torch.autograd.grad((net(rows) - labels).square().mean(), net.parameters())
        with torch.no_grad():
            for p, g in zip(net.parameters(), gradients, strict=True):
                p -= rates[p] * g
        regularizer.shrink(net, rates)
    with torch.no_grad():
        cost = float((net(rows) - labels).square().mean() + regularizer.penalty(net))
    best = optimum(x, Y, strength)
    assert best - 1e-6 <= cost <= 1.02 * best


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"hidden_layer_sizes": (4, 4)},
            "Linear, ReLU, Linear, ReLU; the path norm is",
        ),
        ({"activation": "tanh"}, "one hidden layer with relu"),
        ({"optimizer": "LBFGS"}, "optimizer='LBFGS' takes several steps in one"),
        ({"regularizer__strength": -1.0}, "strength=-1.0 is not allowed"),
        ({"regularizer": "pathnor"}, "unknown regularizer 'pathnor' .did you mean 'PathNorm'"),
        ({"regularizer": None, "regularizer__strength": 1.0}, "regularizer=None has no parameter"),
    ],
)
def test_what_cannot_be_is_one_line(params, words):
    with pytest.raises(ValueError, match=words) as caught:
        make(**params).fit(X, Y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "new"),
    [({"hidden_layer_sizes": (4, 4)}, {"regularizer": "path_norm"}), ({}, {"optimizer": "LBFGS"})],
)
def test_what_cannot_be_is_not_set_on_a_fitted_net(params, new):
    kept = {"regularizer": None} if "regularizer" in new else {}
    net = make(**params, **kept).fit(X, Y)
    before = net.get_params()
    with pytest.raises(ValueError, match=r"path norm is that of|several steps in one"):
        net.set_params(**new)
    assert {k: net.get_params()[k] for k in new} == {k: before[k] for k in new}
    net.partial_fit(X, Y)


@pytest.mark.parametrize("way", ["PathNorm", PathNorm, PathNorm(), {"name": "path_norm"}])
def test_every_way_of_writing_it(way):
    np.testing.assert_array_equal(
        make(regularizer=way).fit(X, Y).predict(X), make().fit(X, Y).predict(X)
    )


def test_it_travels_and_is_set():
    net = make(regularizer__strength=0.2).fit(X, Y)
    assert clone(net).get_params()["regularizer__strength"] == 0.2
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert other.regularizer_.strength == 0.2
        np.testing.assert_array_equal(
            other.partial_fit(X, Y).predict(X), copy.deepcopy(net).partial_fit(X, Y).predict(X)
        )
    net.set_params(regularizer__strength=0.3)
    assert net.regularizer_.strength == 0.3
    grid = {"regularizer__strength": [1e-4, 10.0]}
    search = GridSearchCV(make(max_epochs=20), grid, cv=2).fit(X, Y)
    assert search.best_params_ == {"regularizer__strength": 1e-4}


@pytest.mark.parametrize("aggregator", ["MGDA", "ConicGrad"])
def test_aggregators_do_not_see_it(aggregator):
    """The first step is the aggregator's, then the shrinking."""
    params = {"aggregator": aggregator, "max_epochs": 1, "batch_size": -1, "dtype": "float64"}
    plain = make(**params, regularizer=None).fit(X, Y)
    PathNorm(0.5).shrink(plain.module_, dict.fromkeys(plain.module_.parameters(), 0.05))
    shrunk = make(**params, regularizer__strength=0.5).fit(X, Y)
    for a, b in zip(plain.module_.parameters(), shrunk.module_.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_registry_has_it():
    assert list(REGULARIZERS.members()) == ["PathNorm"]
    assert REGULARIZERS.find("path_norm") is PathNorm
