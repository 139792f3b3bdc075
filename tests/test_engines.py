"""Engines against the explicit float64 Jacobian by torch.func.jacrev, on every kind of module."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from mtlsk.autodiff import task_jacobian, weighted_gradient
from mtlsk.engines import ENGINES, build_engine


class Twice(nn.Module):
    """One layer used twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Tied(nn.Module):
    """A weight used forwards and, transposed, backwards."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(torch.tanh(torch.tanh(self.layer(x)) @ self.layer.weight))


class Unused(nn.Module):
    """A layer that no loss depends on, and one that only the first task does."""

    def __init__(self):
        super().__init__()
        self.layer, self.idle, self.one = nn.Linear(6, 3), nn.Linear(2, 2), nn.Linear(6, 1)

    def forward(self, x):
        out = self.layer(x)
        return torch.cat([out[:, :1] * self.one(x), out[:, 1:]], 1)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.table((x[:, :3].abs() * 3).long() % 5).mean(1)))


def mlp():
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3))


def conv():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 2),
        nn.BatchNorm2d(4),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def recurrent():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.cell(x.reshape(-1, 3, 2))[0][:, -1])

    return Last()


def frozen():
    module = mlp()
    module[2].weight.requires_grad_(False)
    return module


MODULES = {
    "mlp": mlp,
    "conv": conv,
    "embedding": Words,
    "recurrent": recurrent,
    "layer-used-twice": Twice,
    "tied": Tied,
    "unused-parameter": Unused,
    "frozen-parameter": frozen,
}
ENGINE_NAMES = sorted(ENGINES.members())
# whose Gramian is exact where nothing is known of the forward pass
EXACT_NAMES = sorted(set(ENGINE_NAMES) - {"Features"})


def case(name, dtype=torch.float64):
    """Return a module, its trainable parameters, its losses and J by jacrev, tensor by tensor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = MODULES[name]().to(dtype)
        x, y = torch.randn(9, 6, dtype=dtype), torch.randn(9, 3, dtype=dtype)
    module.eval()
    chosen = {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}

    def losses(params):
        return ((functional_call(module, params, (x,)) - y) ** 2).mean(0)

    jacobian = [j.reshape(3, -1) for j in jacrev(losses)(chosen).values()]
    parameters = [p for p in module.parameters() if p.requires_grad]
    return module, parameters, ((module(x) - y) ** 2).mean(0), jacobian


@pytest.fixture(params=[(e, m) for e in EXACT_NAMES for m in MODULES], ids=lambda p: "-".join(p))
def found(request):
    engine, name = request.param
    _, parameters, losses, jacobian = case(name)
    gradients = build_engine(engine).differentiate(losses, parameters)
    return gradients, parameters, jacobian, torch.cat(jacobian, 1)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_the_gramian(found):
    gradients, _, _, whole = found
    gramian = gradients.gramian()
    assert gramian.dtype == torch.float64
    assert gramian.shape == (3, 3)
    close(gramian, whole @ whole.T)
    close(gradients.gramian(), whole @ whole.T)  # asked twice


def test_products(found):
    gradients, _, _, whole = found
    w = torch.tensor([0.5, -1.0, 2.0])
    close(gradients.products(w), whole @ (whole.T @ w.double()))


def test_combine_may_be_called_again_with_other_weights(found):
    gradients, parameters, jacobian, _ = found
    for ask_for_the_gramian in (False, True):
        if ask_for_the_gramian:
            gradients.gramian()
        for w in ([0.5, -1.0, 2.0], [0.0, 0.0, 1.0]):
            w = torch.tensor(w, dtype=torch.float64)
            combined = gradients.combine(w)
            assert len(combined) == len(parameters)
            for d, p, j in zip(combined, parameters, jacobian, strict=True):
                assert d.shape == p.shape
                assert d.dtype == p.dtype
                close(d.reshape(-1), w @ j)


def test_combine_with_other_weights_in_each_tensor(found):
    gradients, parameters, jacobian, _ = found
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(len(parameters), 3, generator=generator, dtype=torch.float64)
    combined = gradients.combine(w)
    for d, p, j, row in zip(combined, parameters, jacobian, w, strict=True):
        assert d.shape == p.shape
        close(d.reshape(-1), row @ j)


def test_block_norms(found):
    gradients, parameters, jacobian, whole = found
    norms = gradients.block_norms()
    assert norms.shape == (len(parameters), 3)
    close(norms, torch.stack([j.norm(dim=1) for j in jacobian]))
    close((norms**2).sum(0), (whole**2).sum(1))


def test_the_modules_are_what_they_say():
    _, _, _, unused = case("unused-parameter")
    assert any(not j.any() for j in unused)
    assert any(j[0].any() and not j[1:].any() for j in unused)
    _, parameters, _, _ = case("frozen-parameter")
    assert len(parameters) == len(list(mlp().parameters())) - 1


@pytest.mark.parametrize("engine", EXACT_NAMES)
def test_without_shared_parameters(engine):
    losses = nn.Linear(2, 3)(torch.ones(4, 2)).mean(0)
    gradients = build_engine(engine).differentiate(losses, [])
    assert torch.equal(gradients.gramian(), torch.zeros(3, 3, dtype=torch.float64))
    assert gradients.products(torch.ones(3)).tolist() == [0, 0, 0]
    assert gradients.block_norms().shape == (0, 3)
    assert gradients.combine(torch.ones(3)) == ()
    assert gradients.combine(torch.ones(0, 3)) == ()


def test_losses_without_a_graph_have_no_gradient():
    p = nn.Parameter(torch.ones(2))
    gradients = build_engine("auto").differentiate(torch.ones(3), [p])
    assert not gradients.gramian().any()
    assert torch.equal(gradients.combine(torch.ones(3))[0], torch.zeros(2))


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_the_engine_says_its_cost_and_error(engine):
    cls = ENGINES.members()[engine]
    assert cls.cost
    assert cls.error


def test_nothing_is_computed_before_it_is_asked_for(monkeypatch):
    _, parameters, losses, _ = case("mlp")
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    gradients = build_engine("exact").differentiate(losses, parameters)
    assert len(calls) == 0
    gradients.combine(torch.ones(3))
    assert len(calls) == 1
    gradients.gramian()
    assert len(calls) == 1 + 3
    for _ in range(2):
        gradients.gramian()
        gradients.products(torch.ones(3))
        gradients.block_norms()
        gradients.combine(torch.ones(3))
    assert len(calls) == 1 + 3


def test_the_float32_gramian_of_two_million_parameters():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(1000, 2000), nn.Tanh(), nn.Linear(2000, 3))
        x, y = torch.randn(8, 1000), torch.randn(8, 3)
    assert sum(p.numel() for p in module.parameters()) > 2e6
    losses = ((module(x) - y) ** 2).mean(0)
    parameters = list(module.parameters())
    gramian = build_engine("exact").differentiate(losses, parameters).gramian()
    # the same rows in float64, by another sum
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    j = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows]).double().numpy()
    scale = torch.from_numpy((j**2).sum(1)).sqrt()
    error = (gramian - torch.from_numpy(j @ j.T)).abs() / scale[:, None] / scale[None, :]
    assert float(error.max()) <= 1e-12
    # and the module in float64: the rounding of the losses' own precision
    wide = module.double()
    exact = [
        torch.autograd.grad(loss, list(wide.parameters()), retain_graph=True)
        for loss in ((wide(x.double()) - y.double()) ** 2).mean(0)
    ]
    k = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in exact])
    error = (gramian - k @ k.T).abs() / scale[:, None] / scale[None, :]
    assert float(error.max()) <= 1e-6


def test_the_primitives():
    _, parameters, losses, jacobian = case("unused-parameter")
    w = torch.tensor([1.0, 2.0, 3.0])
    for g, p, j in zip(weighted_gradient(losses, w, parameters), parameters, jacobian, strict=True):
        close(g.reshape(-1), w.double() @ j)
        assert g.shape == p.shape
    for mine, j in zip(task_jacobian(losses, parameters), jacobian, strict=True):
        close(mine, j)
    assert weighted_gradient(losses, w, []) == ()
