"""HolomorphicSharing: its Levi form is Gauss-Newton's, the pure block remains; Newton's steps."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.func import functional_call, jacrev

from mtlsk import MultiTaskClassifier, MultiTaskRegressor, certify
from mtlsk.curvature import gauss_newton, hessian_shares, levi_form
from mtlsk.modules import HOLOMORPHIC, HolomorphicSharing

RNG = np.random.default_rng(4)
X = RNG.normal(size=(12, 3))
COMPLEX = np.stack([np.exp(1j * X[:, 0]), X[:, 1] * (1 + 1j * X[:, 2])], axis=1)
Y = COMPLEX.view(float)


class Conjugated(HolomorphicSharing):
    """No holomorphic function of its head."""

    def forward(self, X):
        z = torch.complex(X, torch.zeros_like(X))
        for layer in self.trunk:
            z = layer(z).conj() * layer(z)
        return torch.view_as_real(self.head(z)).flatten(1)


def make(module=HolomorphicSharing, size=4, **params):
    small = {"module__hidden_layer_sizes": (size,), "max_epochs": 20, "lr": 0.02}
    return MultiTaskRegressor(module=module, random_state=0, dtype="float64", **{**small, **params})


def test_outputs_are_pairs_of_a_holomorphic_function():
    net = make().fit(X, Y)
    rows = torch.tensor(X)
    params = dict(net.module_.named_parameters())

    def outputs(weight):
        changed = {**params, "trunk.0.weight": weight}
        return functional_call(net.module_, changed, (rows,))

    j = jacrev(outputs)(params["trunk.0.weight"].detach())  # (n, 4, out, in, 2)
    re, im = j[:, ::2], j[:, 1::2]
    assert float(re.detach().abs().max()) > 0.1
    torch.testing.assert_close(re[..., 0], im[..., 1])  # Cauchy and Riemann
    torch.testing.assert_close(re[..., 1], -im[..., 0])


@pytest.mark.parametrize("activation", HOLOMORPHIC)
@pytest.mark.parametrize("aggregator", ["ConicGrad", "LinearScalarization"])
def test_it_trains_through_the_estimator(activation, aggregator):
    net = make(aggregator=aggregator, module__activation=activation, controller="APT").fit(X, Y)
    losses = net.history_[:, "train_loss"]
    assert losses[-1] < losses[0]
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(again.predict(X), net.predict(X))
    np.testing.assert_array_equal(clone(net).fit(X, Y).predict(X), net.predict(X))


@pytest.mark.parametrize("activation", HOLOMORPHIC)
def test_the_levi_form_is_gauss_newton_and_the_pure_block_remains(activation):
    form = levi_form(make(module__activation=activation).fit(X, Y), X, Y)
    assert form.defect < 1e-12
    assert abs(form.residual_trace) < 1e-10
    assert form.asymmetry < 1e-10
    assert form.residual_share > 1e-3  # S is not 0
    torch.testing.assert_close(form.pure, form.pure.T)
    sigma = torch.linalg.svdvals(form.pure)
    expected = torch.cat([-2 * sigma, 2 * sigma]).sort().values
    torch.testing.assert_close(form.residual_eigenvalues, expected, atol=1e-9, rtol=1e-9)


def test_the_pure_block_is_the_sum_over_residuals():
    net = make(size=2).fit(X, Y)
    form = levi_form(net, X, Y)
    module, rows = net.module_, torch.tensor(X)
    names = [name for name, _ in module.named_parameters()]
    theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def outputs(theta):
        parts, values = theta, {}
        for name, p in zip(names, module.parameters(), strict=True):
            values[name], parts = parts[: p.numel()].view_as(p), parts[p.numel() :]
        return functional_call(module, values, (rows,)).reshape(-1, 2)

    second = jacrev(jacrev(lambda t: outputs(t)[:, 0]))(theta).detach()  # of Re Phi
    d2 = torch.complex(second[:, ::2, ::2], -second[:, ::2, 1::2])  # d/dz of d/dz = d/du
    phi = torch.view_as_complex(outputs(theta).detach() - torch.tensor(Y).reshape(-1, 2))
    torch.testing.assert_close(form.pure, torch.einsum("r,rab->ab", phi.conj(), d2) / len(phi))


def test_it_agrees_with_the_shares_of_the_hessian():
    net = make().fit(X, Y)
    form, shares = levi_form(net, X, Y), hessian_shares(net, X, Y)
    assert shares.exact
    assert 2 * shares.residual.norm == pytest.approx(float(form.residual_eigenvalues.norm()))
    assert 2 * shares.hessian.norm == pytest.approx(form.hessian_norm)
    assert abs(shares.residual.trace) < 1e-10 * shares.residual.norm


def test_a_net_that_is_not_holomorphic_is_found_out():
    form = levi_form(make(Conjugated).fit(X, Y), X, Y)
    assert form.defect > 1e-3
    assert form.asymmetry > 1e-3


def test_gauss_newton_converges_quadratically_near_a_zero():
    net = make(size=24, max_epochs=200).fit(X, Y)  # more parameters than residuals
    before = net.predict(X)
    norms = np.array(gauss_newton(net, X, Y, steps=8))
    np.testing.assert_array_equal(net.predict(X), before)
    assert norms[0] == pytest.approx(np.linalg.norm(before - Y))
    assert norms.min() < 1e-11
    inside = norms[(norms < 0.3) & (norms > 1e-13)]
    ratios = [b / a**2 for a, b in pairwise(inside) if b > 1e-12]
    assert len(ratios) >= 2
    assert max(ratios) < 10  # |Phi'| <= C |Phi|^2, with one C
    slower = np.array(gauss_newton(net, X[:4], Y[:4], steps=0))
    assert slower == pytest.approx([np.linalg.norm((before - Y)[:4])])


def test_certify_shows_it():
    report = certify(make().fit(X, Y), X, Y, curvature=True)
    assert report["levi_defect"].value < 1e-12
    assert abs(report["residual_trace"].value) < 1e-10
    assert report["residual_asymmetry"].value < 1e-10
    assert report["pure_share"].value > 0
    holes = Y.copy()
    holes[0, 0] = np.nan
    holey = certify(make().fit(X, Y), X, holes, curvature=True)["levi_defect"]
    assert holey.reason.startswith("y has missing labels")


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (MultiTaskRegressor((4,), max_epochs=1), "the module is HardSharing"),
        (make(criterion="huber"), "a criterion is not squared_error"),
        (make(size=200), "2404 real parameters are more than 1024"),
    ],
)
def test_nets_without_a_levi_form(net, words):
    with pytest.raises(ValueError, match=words):
        levi_form(net.set_params(max_epochs=1).fit(X, Y), X, Y)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"there are 3 target columns.*pairs"):
        make().fit(X, Y[:, :3])
    with pytest.raises(ValueError, match="activation='relu' is not allowed; use one of sine"):
        make(module__activation="relu").fit(X, Y)
    classes = MultiTaskClassifier((4,), max_epochs=1, random_state=0).fit(X, X[:, :1] > 0)
    with pytest.raises(ValueError, match="all tasks must be regressions"):
        gauss_newton(classes, X, X[:, :1] > 0)
