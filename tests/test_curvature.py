"""Curvature of fitted nets against torch.func on the explicit function, in float64."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.func import functional_call, jacrev

from mtlsk import MultiTaskRegressor
from mtlsk.curvature import (
    copy_of,
    estimated_lipschitz,
    gauss_newton_diagonal,
    hessian_shares,
    lipschitz_bound,
    moment_correlation,
    reachable_zero,
)
from mtlsk.curvature.lipschitz import SHAPES, residual_jacobian

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 3))
Y = np.c_[X @ [1.0, -1.0, 0.5], X[:, 0] ** 2 - X[:, 1], np.sin(2 * X[:, 1])]
MISSING = Y.copy()
MISSING[:25, 0] = np.nan
MISSING[::3, 2] = np.nan


def make(**params):
    small = {
        "hidden_layer_sizes": (4,),
        "activation": "tanh",
        "max_epochs": 3,
        "lr": 0.01,
        "random_state": 0,
    }
    return MultiTaskRegressor(**{**small, **params})


def hessian(function):
    """Return its Hessian by reverse mode twice (torch.func.hessian warns of a deprecation)."""
    return jacrev(jacrev(function))


def explicit(net, X, y, shared=False):
    """Return (theta, losses(theta), outputs(theta)) as functions of one flat float64 vector."""
    module = net.module_
    state = {n: t.detach().double() for n, t in module.state_dict().items()}
    names = [n for n, _ in module.named_parameters() if not shared or n.startswith("trunk.")]
    theta = torch.cat([state[n].reshape(-1) for n in names])
    features = torch.tensor(np.asarray(X, dtype=np.float32)).double()
    targets = torch.tensor(np.asarray(y, dtype=np.float32)).double()

    def outputs(vector):
        parts = torch.split(vector, [state[n].numel() for n in names])
        own = {n: v.reshape(state[n].shape) for n, v in zip(names, parts, strict=True)}
        return functional_call(module, {**state, **own}, features)

    def losses(vector):
        f = outputs(vector)
        there = ~targets.isnan()
        return torch.stack(
            [((f[there[:, k], k] - targets[there[:, k], k]) ** 2).mean() for k in range(f.shape[1])]
        )

    return theta, losses, outputs


def classical_gauss_newton(theta, outputs, y):
    """Return (2/K) sum_k (1/n_k) sum_i grad f_ik grad f_ik' for squared errors."""
    j = jacrev(outputs)(theta)  # (n, K, M)
    there = torch.tensor(~np.isnan(y)).double()
    weight = 2 / there.shape[1] * there / there.sum(0)
    return torch.einsum("nk,nka,nkb->ab", weight, j, j)


# ---- the two parts of the Hessian


@pytest.mark.parametrize("y", [Y, MISSING], ids=["all", "missing"])
@pytest.mark.parametrize("parameters", ["all", "shared"])
@pytest.mark.parametrize("objective", ["mean_loss", "h"])
def test_shares_are_those_of_the_explicit_hessian(objective, parameters, y):
    net = make().fit(X, y)
    theta, losses, outputs = explicit(net, X, y, parameters == "shared")
    if objective == "h":
        H = hessian(lambda v: (losses(v) ** 2).mean())(theta)
        j = jacrev(losses)(theta)
        GN = 2 / 3 * j.T @ j
    else:
        H = hessian(lambda v: losses(v).mean())(theta)
        GN = classical_gauss_newton(theta, outputs, y)
    found = hessian_shares(net, X, y, objective=objective, parameters=parameters)
    assert found.exact
    assert found.n_parameters == len(theta)
    for part, matrix in (
        (found.hessian, H),
        (found.gauss_newton, GN),
        (found.residual, H - GN),
    ):
        eigenvalues = torch.linalg.eigvalsh(matrix)
        top = eigenvalues[eigenvalues.abs().argmax()]
        assert part.trace == pytest.approx(float(matrix.trace()), rel=1e-8, abs=1e-10)
        assert part.norm == pytest.approx(float(matrix.norm()), rel=1e-8)
        assert part.top == pytest.approx(float(top), rel=1e-8)
    share = (H - GN).norm() / ((H - GN).norm() + GN.norm())
    assert found.residual_share == pytest.approx(float(share), rel=1e-8)
    assert 0.01 < found.residual_share < 0.99


def test_estimates_agree_with_the_exact_matrices(monkeypatch):
    net = make(hidden_layer_sizes=(8,)).fit(X, Y)
    exact = hessian_shares(net, X, Y)
    monkeypatch.setattr("mtlsk.curvature.hessian.EXACT", 0)
    found = hessian_shares(net, X, Y, probes=200)
    assert exact.exact
    assert not found.exact
    for name in ("hessian", "gauss_newton", "residual"):
        a, b = getattr(exact, name), getattr(found, name)
        assert abs(a.trace - b.trace) < 5 * b.trace_error
        assert 0 < b.trace_error < abs(exact.hessian.trace)
        assert b.norm == pytest.approx(a.norm, rel=0.3)
        assert b.top == pytest.approx(a.top, rel=1e-3)  # Lanczos is no random estimate
    assert found.residual_share == pytest.approx(exact.residual_share, abs=0.05)


def test_a_linear_net_has_no_residual_part():
    net = make(hidden_layer_sizes=()).fit(X, Y)
    found = hessian_shares(net, X, Y)
    assert found.residual_share < 1e-12
    assert found.gauss_newton.norm == pytest.approx(found.hessian.norm)
    with pytest.raises(ValueError, match="no shared parameters"):
        hessian_shares(net, X, Y, parameters="shared")


def test_an_exact_fit_has_no_residual_part():
    net = make().fit(X, Y)
    fitted = net.module_(torch.tensor(X, dtype=torch.float32)).detach().double().numpy()
    assert hessian_shares(net, X, fitted).residual_share < 1e-6
    assert hessian_shares(net, X, Y).residual_share > 0.05


def test_looking_leaves_the_net_alone():
    net, blind = make().fit(X, Y), make().fit(X, Y)
    state = torch.get_rng_state()
    hessian_shares(net, X, Y)
    moment_correlation(net, X, Y)
    reachable_zero(net, X[:3], Y[:3])
    reachable_zero(net, X[:3], Y[:3], lipschitz="estimated")
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.dtype == torch.float32 for p in net.module_.parameters())
    assert np.array_equal(net.partial_fit(X, Y).predict(X), blind.partial_fit(X, Y).predict(X))


def test_rows_are_capped_evenly():
    net = make().fit(X, Y)
    copy = copy_of(net, X, Y, max_rows=5)
    assert copy.n_given == 40
    np.testing.assert_allclose(copy.X.numpy(), X[[0, 9, 19, 29, 39]].astype(np.float32))
    assert hessian_shares(net, X, Y, max_rows=5).n_rows == 5


def test_a_task_without_labels_among_the_rows_is_left_out():
    y = Y.copy()
    y[[0, 9, 19, 29, 39], 1] = np.nan
    net = make().fit(X, y)
    copy = copy_of(net, X, y, max_rows=5)
    assert len(copy.losses(copy.outputs())) == 2


def test_dropout_and_batch_norm_are_in_evaluation_mode():
    module = nn.Sequential(
        nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)
    )
    net = MultiTaskRegressor(module=module, max_epochs=2, random_state=0).fit(X, Y)
    net.module_.train()
    first, again = (hessian_shares(net, X, Y) for _ in range(2))
    assert first == again
    assert net.module_.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "loss"}, "'mean_loss' or 'h'"),
        ({"parameters": "trunk"}, "'all' or 'shared'"),
        ({"probes": 1}, "probes=1"),
    ],
)
def test_wrong_options_say_what_is_allowed(options, words):
    net = make().fit(X, Y)
    with pytest.raises(ValueError, match=words):
        hessian_shares(net, X, Y, **options)


# ---- the diagonal, and the optimizer's second moment


@pytest.mark.parametrize("y", [Y, MISSING], ids=["all", "missing"])
def test_the_diagonal_is_that_of_the_explicit_matrix(y):
    net = make().fit(X, y)
    theta, _, outputs = explicit(net, X, y)
    wanted = classical_gauss_newton(theta, outputs, y).diagonal()
    found = torch.cat([d.reshape(-1) for d in gauss_newton_diagonal(copy_of(net, X, y))])
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "NAdam", "RAdam"])
def test_moment_correlation_by_hand(optimizer):
    net = make(optimizer=optimizer).fit(X, Y)
    theta, _, outputs = explicit(net, X, Y)
    diagonal = classical_gauss_newton(theta, outputs, Y).diagonal().numpy()
    diagonal = np.round(diagonal, 9)  # equal but for rounding: ties
    state = net.optimizer_.state
    v = torch.cat([state[p]["exp_avg_sq"].reshape(-1) for p in net.module_.parameters()])
    found, n = moment_correlation(net, X, Y)
    assert n == len(theta)
    assert found == pytest.approx(spearmanr(v.numpy(), diagonal).statistic, abs=1e-9)
    assert -1 <= found <= 1


def test_muon_is_looked_at_where_it_is_adam():
    net = make(optimizer="Muon").fit(X, Y)
    _, n = moment_correlation(net, X, Y)
    matrices = sum(p.numel() for n, p in net.module_.named_parameters() if n == "trunk.0.weight")
    assert n == sum(p.numel() for p in net.module_.parameters()) - matrices


def test_without_second_moments_it_refuses():
    with pytest.raises(ValueError, match="SGD keeps no second moment; take the Adam family"):
        moment_correlation(make(optimizer="SGD", lr=1e-4).fit(X, Y), X, Y)
    fresh = make().initialize_for(X, Y)
    with pytest.raises(ValueError, match="before its first step"):
        moment_correlation(fresh, X, Y)


# ---- exact fits within reach


@pytest.mark.parametrize("name", [cls.__name__ for cls in SHAPES])
def test_activations_are_within_their_numbers(name):
    cls = next(c for c in SHAPES if c.__name__ == name)
    shape = SHAPES[cls]
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    a = cls()(z)
    slope = (a[1:] - a[:-1]) / (z[1] - z[0])
    bend = (slope[1:] - slope[:-1]) / (z[1] - z[0])
    assert slope.abs().max() <= shape.slope + 1e-9
    assert slope.abs().max() > 0.97 * shape.slope
    assert bend.abs().max() <= shape.bend + 1e-4
    assert bend.abs().max() >= 0.97 * shape.bend - 1e-6
    assert a.abs().max() <= shape.height
    assert float(cls()(torch.zeros(1, dtype=torch.float64)).abs()) <= shape.zero + 1e-12


@pytest.mark.parametrize("radius", [1e-3, 0.3])
@pytest.mark.parametrize(
    "activation", ["tanh", "logistic", "softplus", "silu", "gelu", "elu", "identity"]
)
def test_the_bound_is_above_what_is_seen(activation, radius):
    net = make(hidden_layer_sizes=(6, 5), activation=activation, module__skip=True).fit(X, Y)
    copy = copy_of(net, X[:4], Y[:4])
    labelled = torch.ones(4, 3, dtype=torch.bool)
    before = [p.clone() for p in copy.parameters]
    seen = estimated_lipschitz(copy, labelled, radius, samples=8)
    assert all(torch.equal(a, b) for a, b in zip(before, copy.parameters, strict=True))
    bound = lipschitz_bound(copy, labelled.any(1), radius)
    assert seen < bound < 300 * seen


def test_the_bound_is_above_the_second_derivative_along_its_worst_direction():
    net = make(hidden_layer_sizes=(3,)).fit(X, Y)
    copy = copy_of(net, X[:1], Y[:1])
    theta, _, outputs = explicit(net, X[:1], Y[:1])
    second = hessian(lambda v: outputs(v)[0])(theta)  # (K, M, M)
    worst = max(float(torch.linalg.eigvalsh(m).abs().max()) for m in second)
    assert lipschitz_bound(copy, torch.tensor([True]), 0.0) >= worst


def nearly_fitted(rows=5, noise=1e-4, **params):
    """Return a net and labels that it misses by little."""
    net = make(hidden_layer_sizes=(16,), **params).fit(X, Y)
    f = net.module_(torch.tensor(X[:rows], dtype=torch.float32)).detach().double().numpy()
    return net, X[:rows].copy(), f + noise * RNG.standard_normal(f.shape)


@pytest.mark.parametrize("lipschitz", ["bound", "estimated"])
def test_newton_finds_the_zero_within_the_radius(lipschitz):
    net, x, y = nearly_fitted()
    y[0, 1] = np.nan
    found = reachable_zero(net, x, y, lipschitz=lipschitz)
    assert found.applicable, found.reason
    assert found.estimated == (lipschitz == "estimated")
    assert ("ESTIMATED" in " ".join(found.assumptions)) == found.estimated
    copy = copy_of(net, x, y)
    labelled = ~copy.y.isnan()
    start = [p.detach().clone() for p in copy.parameters]
    for _ in range(8):
        phi = (copy.outputs() - copy.y)[labelled].detach()
        j = residual_jacobian(copy, labelled)
        step = copy.unflatten(torch.linalg.lstsq(j, phi, driver="gelsd").solution)
        with torch.no_grad():
            for p, s in zip(copy.parameters, step, strict=True):
                p -= s
    left = float((copy.outputs() - copy.y)[labelled].detach().abs().max())
    pairs = zip(copy.parameters, start, strict=True)
    away = math.sqrt(sum(float(((p.detach() - s) ** 2).sum()) for p, s in pairs))
    assert left < 1e-13
    assert 0.4 * found.value < away <= found.value


def test_a_given_constant_is_taken_and_named():
    net, x, y = nearly_fitted()
    small, large = (reachable_zero(net, x, y, lipschitz=c) for c in (0.0, 50.0))
    assert small.value < large.value
    assert "given, not checked" in " ".join(small.assumptions)
    assert not small.estimated
    assert not reachable_zero(net, x, y, lipschitz=1e9).applicable


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("many rows", "120 residuals .* only 31 parameters"),
        ("far", "is above 1/2"),
        ("kinks", r"kinks \(ReLU\), where J jumps"),
        ("repeated", "no full row rank"),
        ("criterion", "is no regression by"),
        ("module", "no bound on L_J is known for Sequential"),
        ("too many", "more than the 2 whose Jacobian"),
    ],
)
def test_outside_the_theorem_it_says_why(case, words, monkeypatch):
    net, x, y = nearly_fitted()
    if case == "many rows":
        net, x, y = make().fit(X, Y), X, Y
    elif case == "far":
        y = y + 10
    elif case == "kinks":
        net, x, y = nearly_fitted(activation="relu")
    elif case == "repeated":
        x[1] = x[0]
    elif case == "criterion":
        net, x, y = nearly_fitted(criterion=quartic)
    elif case == "module":
        module = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 3))
        net = MultiTaskRegressor(module=module, max_epochs=1, random_state=0).fit(X, Y)
    else:
        monkeypatch.setattr("mtlsk.curvature.zero.MAX_RESIDUALS", 2)
    found = reachable_zero(net, x, y)
    assert not found.applicable
    assert found.value is None
    assert re.search(words, found.reason), found.reason
    assert str(found).startswith("reachable_zero: not applicable: ")


def quartic(prediction, label):
    return (prediction.squeeze(1) - label) ** 4


def test_kinks_are_named_where_a_constant_is_given():
    net, x, y = nearly_fitted(activation="relu")
    found = reachable_zero(net, x, y, lipschitz=1.0)
    assert found.applicable, found.reason
    assert "no ReLU unit changes sides within the ball" in found.assumptions
    with pytest.raises(ValueError, match="'bound', 'estimated' or a number"):
        reachable_zero(net, x, y, lipschitz="guess")


def test_a_perfect_fit_is_a_zero_at_distance_zero():
    net, x, _ = nearly_fitted()
    copy = copy_of(net, x, np.zeros((len(x), 3)))
    y = copy.outputs().detach().numpy()
    assert reachable_zero(net, x, y).value < 1e-5  # labels are float32
