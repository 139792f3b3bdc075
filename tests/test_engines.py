"""Engines against the explicit float64 Jacobian by torch.func.jacrev, on every kind of module."""

from __future__ import annotations

import functools
import itertools
import warnings

import numpy as np
import pytest
import torch
from test_linear_graph import FALLBACK, HAND, HOOKED, SLICES, D, W, made, numbers, trainable
from torch import nn
from torch.func import functional_call, jacrev
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mtlsk.autodiff import task_jacobian, weighted_gradient
from mtlsk.descent import Descent
from mtlsk.engines import ENGINES, Budget, Exact, Features, Forward, build_engine
from mtlsk.engines import features as features_module
from mtlsk.engines import linear as linear_module
from mtlsk.engines.budget import budget_rows
from mtlsk.engines.exact import AutogradGradients
from mtlsk.engines.linear import LinearGradients
from mtlsk.engines.one_label import OneLabelGradients
from mtlsk.linear_graph import Columns
from mtlsk.linear_graph import workspace as workspace_module
from mtlsk.modules import HardSharing


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


# ---- with what is known of the forward pass

OTHERWISE = "in another way than through the outputs"
EXACT = {
    "auto": "auto",
    "linear": {"name": "Exact", "route": "linear"},
    "autograd": {"name": "Exact", "route": "autograd"},
    "budget-of-all-rows": {"name": "Budget", "rows": 1000},
    "online": "online",
}


def task_losses(outputs, targets, slices):
    """Return losses (K,) in which the columns of a task mix, and those of two tasks do not."""
    error = outputs - targets
    return torch.stack(
        [(error[:, c].square().sum(1) + outputs[:, c].logsumexp(1)).mean() for c in slices]
    )


@functools.cache
def known(name, n, columns):
    """Return module, inputs, targets, and J by jacrev, tensor by tensor."""
    module = made({**HAND, **FALLBACK}[name])
    x, y = numbers(n, D), numbers(n, W, seed=2)
    chosen = {k: p.detach() for k, p in module.named_parameters() if p.requires_grad}

    def losses(params):
        return task_losses(functional_call(module, params, (x,)), y, SLICES[columns])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations that torch.func does one by one
        rows = jacrev(losses)(chosen).values()
    return module, x, y, [j.reshape(len(SLICES[columns]), -1) for j in rows]


def forwarded(module, x, y, columns):
    """Return the losses of a forward pass and what is known about it."""
    outputs = module(x)
    known_about_it = Forward(outputs, Columns(SLICES[columns], W))
    return task_losses(outputs, y, SLICES[columns]), known_about_it


def check_gramian(gradients, jacobian, own):
    whole = torch.cat(jacobian, 1)
    close(gradients.gramian(), whole @ whole.T)


def check_products(gradients, jacobian, own):
    whole, w = torch.cat(jacobian, 1), numbers(jacobian[0].shape[0])
    close(gradients.products(w), whole @ (whole.T @ w))


def check_norms(gradients, jacobian, own):
    close(gradients.block_norms(), torch.stack([j.norm(dim=1) for j in jacobian]))


def check_combine(gradients, jacobian, own):
    for seed in (1, 2):
        w = numbers(jacobian[0].shape[0], seed=seed)
        combined = gradients.combine(w)
        for d, p, j in zip(combined, gradients.shared, jacobian, strict=True):
            assert (d.shape, d.dtype) == (p.shape, p.dtype)
            close(d.flatten(), w @ j)


def check_combine_by_tensor(gradients, jacobian, own):
    w = numbers(len(jacobian), jacobian[0].shape[0])
    for d, p, j, row in zip(gradients.combine(w), gradients.shared, jacobian, w, strict=True):
        assert d.shape == p.shape
        close(d.flatten(), row @ j)


def check_own(gradients, jacobian, own):
    parameters, rows = own
    w = numbers(jacobian[0].shape[0], seed=3)
    combined = gradients.combine_own(w, parameters)
    for d, p, j in zip(combined, parameters, rows, strict=True):
        assert d.shape == p.shape
        close(d.flatten(), w @ j)


CHECKS = (
    *(check_gramian, check_products, check_norms),
    *(check_combine, check_combine_by_tensor, check_own),
)


def check_all(gradients, jacobian, own=((), ()), order=1):
    """Ask for everything twice, in this order of the checks or, as in a step, the other one."""
    with torch.set_grad_enabled(order > 0):
        for check in (*CHECKS, *CHECKS)[::order]:
            check(gradients, jacobian, own)


@pytest.fixture
def tiny(monkeypatch):
    """Let memory be used again and sums be made in blocks, however few the numbers are."""
    monkeypatch.setattr(workspace_module, "FRESH", 1)
    monkeypatch.setattr(linear_module, "HELD", 23)
    monkeypatch.setattr(linear_module, "BLOCK", 4)


@pytest.mark.parametrize("columns", ["one-column-each", "unequal-widths", "one-task"])
@pytest.mark.parametrize("n", [3, 40], ids=["few-rows", "many-rows"])
@pytest.mark.parametrize("name", HAND)
def test_linear_nets_by_hand(tiny, name, n, columns):
    module, x, y, jacobian = known(name, n, columns)
    for engine, order in (("auto", 1), ("auto", -1), ("online", 1), ("budget-of-all-rows", -1)):
        losses, forward = forwarded(module, x, y, columns)
        gradients = build_engine(EXACT[engine]).differentiate(losses, trainable(module), forward)
        assert type(gradients) is LinearGradients
        check_all(gradients, jacobian, order=order)
    gradients = build_engine(EXACT["autograd"]).differentiate(losses, trainable(module), forward)
    assert type(gradients) is AutogradGradients


@pytest.mark.parametrize("name", FALLBACK)
def test_other_modules_fall_back_on_autograd(name):
    module, x, y, jacobian = known(name, 9, "unequal-widths")
    for spec in EXACT.values():
        losses, forward = forwarded(module, x, y, "unequal-widths")
        gradients = build_engine(spec).differentiate(losses, trainable(module), forward)
        assert type(gradients) is AutogradGradients
        check_all(gradients, jacobian)


@pytest.mark.parametrize("make", HOOKED.values(), ids=HOOKED)
def test_hooks_act(make):
    module = made(make)
    parameters = list(module.parameters())
    for spec in EXACT.values():
        losses, forward = forwarded(module, numbers(9, D), numbers(9, W), "unequal-widths")
        gradients = build_engine(spec).differentiate(losses, parameters, forward)
        rows = [torch.autograd.grad(v, parameters, retain_graph=True) for v in losses]
        jacobian = [torch.stack([row[i].flatten() for row in rows]) for i in range(len(parameters))]
        check_all(gradients, jacobian)


@pytest.mark.parametrize(
    "name",
    [
        "skip",
        "frozen-middle-layer",
        "residual",
        "no-hidden-layer",
        "last-layer-read-twice",
        "nested",
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("spec", EXACT.values(), ids=EXACT)
def test_some_parameters_are_the_tasks_own(tiny, name, cut, spec):
    module, x, y, jacobian = known(name, 9, "unequal-widths")
    parameters = trainable(module)
    cut = len(parameters) - cut if len(parameters) > 3 else 1
    losses, forward = forwarded(module, x, y, "unequal-widths")
    shared, own = parameters[:cut], parameters[cut:]
    gradients = build_engine(spec).differentiate(losses, shared, forward, own)
    check_all(gradients, jacobian[:cut], (own, jacobian[cut:]))


def test_heads_of_hard_sharing_are_layers_on_top(monkeypatch):
    module = made(lambda: HardSharing(D, W, (5, 4), skip=True))
    x, y = numbers(9, D), numbers(9, W, seed=2)
    losses, forward = forwarded(module, x, y, "one-column-each")
    shared, own = list(module.trunk.parameters()), list(module.task_parameters(0))
    gradients = build_engine("auto").differentiate(losses, shared, forward, own)
    monkeypatch.setattr(gradients.graph, "cotangents", None)  # nothing goes down the net
    w = numbers(W)
    expected = weighted_gradient(losses, w, own)
    for a, b in zip(gradients.combine_own(w, own), expected, strict=True):
        close(a, b)


@pytest.mark.parametrize("spec", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("columns", ["one-column-each", "unequal-widths"])
def test_some_of_the_tasks(tiny, spec, columns):
    for tasks in ([0, 2], [1], [2, 0]):
        module, x, y, jacobian = known("skip", 9, columns)
        losses, forward = forwarded(module, x, y, columns)
        gradients = build_engine(spec).differentiate(
            losses[tasks], trainable(module), forward.of(tasks)
        )
        assert len(forward.of(tasks).columns) == len(tasks)
        check_all(gradients, [j[tasks] for j in jacobian])


@pytest.mark.parametrize("spec", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("name", ["mlp-relu", "skip", "residual", "constants", "no-bias"])
def test_step_after_step_with_other_batch_sizes(tiny, spec, name):
    engine, kept = build_engine(spec), []
    for n in (40, 40, 3, 9, 1, 40):
        module, x, y, jacobian = known(name, n, "unequal-widths")
        losses, forward = forwarded(module, x, y, "unequal-widths")
        gradients = engine.differentiate(losses, trainable(module), forward)
        check_all(gradients, jacobian, order=-1 if n == 9 else 1)
        handed = [gradients.gramian(), *gradients.combine(torch.ones(3))]
        kept += [(t, t.clone()) for t in handed]
    assert all(torch.equal(t, before) for t, before in kept)  # what was handed out stays


def test_dropout_by_hand_is_that_of_the_pass():
    layers = (nn.Linear(D, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, W))
    module = made(lambda: nn.Sequential(*layers))
    parameters, engine = list(module.parameters()), build_engine("auto")
    seen = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(3):
            losses, forward = forwarded(module, numbers(9, D), numbers(9, W), "unequal-widths")
            gradients = engine.differentiate(losses, parameters, forward)
            assert type(gradients) is LinearGradients
            check_all(gradients, AutogradGradients(losses, parameters).jacobian)
            seen.append(float(gradients.gramian()[0, 0]))
    assert len(set(seen)) == 3


# what is said of the losses may be wrong


def penalised(losses, module, factor=1.0):
    return losses + factor * sum(p.square().sum() for p in module.parameters())


def mixed(losses, module):
    return torch.stack([losses[0] + 0.3 * losses[1], *losses[1:]])


WRONG = {
    "penalty": penalised,
    "small-penalty": functools.partial(penalised, factor=1e-5),
    "mixed-columns": mixed,
    "hardly-mixed-columns": lambda losses, module: losses + 1e-4 * losses.flip(0),
}


def differentiated(engine, losses, parameters, forward):
    """Return the task gradients, and whether a warning said that the losses are otherwise."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradients = engine.differentiate(losses, parameters, forward)
    return gradients, [OTHERWISE in str(c.message) for c in caught]


BY_HAND = ["auto", {"name": "Budget", "rows": 1000}, "online"]


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("spec", BY_HAND, ids=str)
def test_losses_that_are_not_what_is_said_of_them_warn_once_and_are_right(change, spec):
    engine, module = build_engine(spec), made(HAND["mlp-tanh"])
    parameters = list(module.parameters())
    for step in range(3):
        losses, forward = forwarded(module, numbers(9, D), numbers(9, W), "unequal-widths")
        losses = change(losses, module)
        gradients, warned = differentiated(engine, losses, parameters, forward)
        assert warned == [True] * (step == 0)
        check_all(gradients, AutogradGradients(losses, parameters).jacobian)


@pytest.mark.parametrize("spec", BY_HAND, ids=str)
def test_a_penalty_below_the_rounding_of_the_other_terms_counts(spec):
    engine, module = build_engine(spec), made(HAND["mlp-tanh"], torch.float32)
    nn.init.zeros_(module.head.weight)  # below the head there is the penalty alone
    parameters = list(module.parameters())
    x, y = (numbers(9, m, seed=m, dtype=torch.float32) for m in (D, W))
    w = numbers(len(SLICES["unequal-widths"]), dtype=torch.float32)
    for step in range(2):
        losses, forward = forwarded(module, x, y, "unequal-widths")
        data = weighted_gradient(losses, w, parameters)
        losses = penalised(losses, module, 1e-7)
        gradients, warned = differentiated(engine, losses, parameters, forward)
        assert warned == [True] * (step == 0)
        assert type(gradients) is AutogradGradients
        combined = gradients.combine(w)
        expected = 2e-7 * w.sum() * parameters[0].detach()
        assert 1e-8 < float(expected.norm() / data[-1].norm()) < 1e-6
        assert not data[0].any()
        torch.testing.assert_close(combined[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("spec", BY_HAND, ids=str)
def test_a_penalty_counts_in_the_steps_that_have_it(spec):
    engine, module = build_engine(spec), made(HAND["mlp-tanh"])
    parameters, autograd, warnings_of = list(module.parameters()), [], []
    for factor in (0, 0, 1e-5, 1e-5, 0):
        losses, forward = forwarded(module, numbers(9, D), numbers(9, W), "unequal-widths")
        losses = penalised(losses, module, factor) if factor else losses
        gradients, warned = differentiated(engine, losses, parameters, forward)
        autograd.append(type(gradients) is AutogradGradients)
        warnings_of.append(warned)
        check_all(gradients, AutogradGradients(losses, parameters).jacobian)
    assert autograd == [False, False, True, True, False]
    assert warnings_of == [[], [], [True], [], []]


class Square(torch.autograd.Function):
    """An operation defined in Python."""

    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return a**2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


def apart(columns):
    """Return losses of single columns, each by a chain of its own."""
    return torch.stack([c.square().mean() for c in columns])


ODD = {
    "chunk": (slice(4), lambda out: out.chunk(2, 1)[0].square().mean(0)),
    "split": (slice(3, W), lambda out: out.split([3, W - 3], 1)[1].square().mean(0)),
    "unbind": (slice(2, 3), lambda out: out.unbind(1)[2].square().mean().reshape(1)),
    "every-chunk": (slice(W), lambda out: apart(out.chunk(W, 1))),
    "every-part-of-split": (slice(W), lambda out: apart(out.split(1, 1))),
    "all-of-unbind": (slice(W), lambda out: apart(out.unbind(1))),
    "function-of-its-own": (slice(W), lambda out: Square.apply(out).mean(0)),
}


@pytest.mark.parametrize(("used", "losses_of"), ODD.values(), ids=ODD)
def test_losses_made_of_the_outputs_by_odd_operations(used, losses_of):
    engine, module = build_engine("auto"), made(HAND["mlp-tanh"])
    parameters = list(module.parameters())
    columns = Columns([slice(k, k + 1) for k in range(W)][used], W)
    for _ in range(2):
        outputs = module(numbers(9, D))
        losses = losses_of(outputs)
        gradients = engine.differentiate(losses, parameters, Forward(outputs, columns))
        assert type(gradients) is LinearGradients
        check_all(gradients, AutogradGradients(losses, parameters).jacobian)


@pytest.mark.parametrize("spec", ["auto", "online"])
def test_own_parameters_that_act_beside_the_outputs_are_trained(spec):
    module = made(lambda: HardSharing(D, W, (5,)))
    module.log_scale = nn.Parameter(torch.zeros(W, dtype=torch.float64))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    live = Descent(module, optimizer, "MGDA", n_tasks=W, gramian=spec)
    losses, forward = forwarded(module, numbers(9, D), numbers(9, W), "one-column-each")
    losses = torch.exp(-module.log_scale) * losses + module.log_scale
    expected = weighted_gradient(
        losses, torch.full((W,), 1 / W, dtype=torch.float64), [module.log_scale]
    )[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether it says so is not the point
        live.backward(losses, None, forward)
    close(module.log_scale.grad, expected)


# one label a row


def one_label(n, n_tasks, seed=0):
    """Return the task of each row, unbalanced, of several the last without any; -1: no label."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([8.0, 1.0, 3.0, 2.0, 1.0, 1.0, 0.0][:n_tasks])
    weights[-1] *= n_tasks != 3
    task = torch.multinomial(weights, n, replacement=True, generator=generator)
    task[:: max(4, n // 10)] = -1
    return task


def one_label_losses(outputs, targets, slices, task):
    error, losses = (outputs - targets).square(), []
    for k, c in enumerate(slices):
        rows = task == k
        losses.append(error[rows][:, c].sum() / rows.sum().clamp_min(1))
    return torch.stack(losses)


@pytest.mark.parametrize("spec", ["auto", "budget"])
@pytest.mark.parametrize("columns", ["one-column-each", "unequal-widths", "one-task"])
@pytest.mark.parametrize("n", [5, 400], ids=["few-rows", "many-rows"])
@pytest.mark.parametrize("name", ["mlp-gelu", "skip", "residual", "frozen-middle-weight"])
def test_rows_with_one_label(tiny, spec, columns, n, name):
    module, slices = made(HAND[name]), SLICES[columns]
    parameters, engine = trainable(module), build_engine(spec)
    for seed in range(2):
        task = one_label(n, len(slices), seed)
        outputs = module(numbers(n, D))
        losses = one_label_losses(outputs, numbers(n, W, seed=2), slices, task)
        forward = Forward(outputs, Columns(slices, W), task.clamp_min(0))
        gradients = engine.differentiate(losses, parameters, forward)
        assert type(gradients) is OneLabelGradients
        jacobian = AutogradGradients(losses, parameters).jacobian
        check_all(gradients, jacobian, order=1 - 2 * seed)
        assert float(torch.cat(jacobian, 1).norm()) > 0


def test_each_way_to_the_gramian_of_rows_with_one_label(monkeypatch):
    ways, original = [], OneLabelGradients._by_task
    monkeypatch.setattr(
        OneLabelGradients, "_by_task", lambda self, *args: ways.append(1) or original(self, *args)
    )
    module = made(HAND["mlp-gelu"])
    for n, columns, expected in ((5, "unequal-widths", False), (400, "unequal-widths", True)):
        ways.clear()
        task, outputs = one_label(n, 3), module(numbers(n, D))
        losses = one_label_losses(outputs, numbers(n, W), SLICES[columns], task)
        forward = Forward(outputs, Columns(SLICES[columns], W), task.clamp_min(0))
        build_engine("auto").differentiate(losses, trainable(module), forward).gramian()
        assert bool(ways) == expected


def test_rows_with_one_label_of_some_tasks(tiny):
    module, slices = made(HAND["mlp-gelu"]), SLICES["unequal-widths"]
    task = torch.tensor([2, 0, 2, 2, 0, 2, 0, 0, 0])
    outputs = module(numbers(9, D))
    losses = one_label_losses(outputs, numbers(9, W), slices, task)[[0, 2]]
    forward = Forward(outputs, Columns(slices, W), task).of([0, 2])
    assert forward.task_of_row.tolist() == [1, 0, 1, 1, 0, 1, 0, 0, 0]
    gradients = build_engine("auto").differentiate(losses, trainable(module), forward)
    check_all(gradients, AutogradGradients(losses, trainable(module)).jacobian)


def test_the_linear_route_takes_rows_with_one_label_like_others():
    module, slices = made(HAND["mlp-gelu"]), SLICES["unequal-widths"]
    task, outputs = one_label(9, 3), module(numbers(9, D))
    losses = one_label_losses(outputs, numbers(9, W), slices, task)
    forward = Forward(outputs, Columns(slices, W), task.clamp_min(0))
    gradients = build_engine(EXACT["linear"]).differentiate(losses, trainable(module), forward)
    assert type(gradients) is LinearGradients
    check_all(gradients, AutogradGradients(losses, trainable(module)).jacobian)


# the budget


def test_how_many_rows_the_budget_takes():
    assert [budget_rows(*nk) for nk in ((256, 7), (256, 40), (256, 2), (10, 7), (64, 100))] == [
        *(74, 16, 256, 10, 16)
    ]


def again_of(module, x, y, columns, calls):
    def again(rows):
        calls.append(rows)
        some = slice(None) if rows is None else rows
        outputs = module(x[some])
        return task_losses(outputs, y[some], SLICES[columns]), outputs

    return again


@pytest.mark.parametrize(
    ("rows", "taken"),
    [(1, slice(0, 1)), (4, slice(0, 80, 20)), (30, slice(0, 60, 2)), (50, slice(0, 50))],
)
@pytest.mark.parametrize("name", ["residual", "conv"])
def test_the_budget_s_gramian_is_that_of_some_rows(tiny, name, rows, taken):
    module, x, y, whole = known(name, 80, "unequal-widths")
    parameters, calls, engine = trainable(module), [], Budget(rows=rows)
    part = AutogradGradients(
        task_losses(module(x[taken]), y[taken], SLICES["unequal-widths"]), parameters
    )
    for _ in range(2):
        losses, forward = forwarded(module, x, y, "unequal-widths")
        again = again_of(module, x, y, "unequal-widths", calls)
        forward = Forward(forward.outputs, forward.columns, None, again)
        gradients = engine.differentiate(losses, parameters, forward)
        for check in (check_gramian, check_products, check_norms):
            check(gradients, part.jacobian, None)
        for check in (check_combine, check_combine_by_tensor):  # of all rows
            check(gradients, whole, None)
        check_own(gradients, [whole[0]], ([parameters[0]], [whole[0]]))
        check_gramian(gradients, part.jacobian, None)
    assert len(x[taken]) == rows
    # one look at whether the module repeats itself, then one pass a step
    assert len(calls) == (0 if name == "residual" else 1 + 2)
    assert all(len(x[c]) == rows for c in calls)


def test_by_default_the_budget_follows_its_rule():
    module, x, y, _ = known("residual", 80, "one-column-each")
    losses, forward = forwarded(module, x, y, "one-column-each")
    gradients = build_engine("budget").differentiate(losses, trainable(module), forward)
    assert len(x[gradients.estimated_from]) == budget_rows(80, W) == 23
    few = forwarded(module, x[:16], y[:16], "one-column-each")
    gradients = build_engine("budget").differentiate(few[0], trainable(module), few[1])
    assert gradients.estimated_from is None


class Noisy(nn.Module):
    """Random beyond torch's generators."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Conv1d(1, 3, 2), nn.Linear(3 * (D - 1), W)
        self.random = np.random.default_rng(0)

    def forward(self, x):
        noise = torch.from_numpy(self.random.normal(size=x.shape)).to(x)
        return self.head(torch.tanh(self.a((x + 0.1 * noise).unsqueeze(1))).flatten(1))


def batch_norm():
    return nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, W))


def dropped_conv():
    return nn.Sequential(
        nn.Unflatten(1, (1, D)), nn.Conv1d(1, 3, 2), nn.Dropout(), nn.Flatten(), nn.Linear(15, W)
    )


@pytest.mark.parametrize("make", [Noisy, batch_norm, dropped_conv])
def test_the_budget_takes_all_rows_where_some_would_not_be_the_same(make):
    module, engine, x, y = made(make), Budget(rows=5), numbers(20, D), numbers(20, W)
    parameters, calls = list(module.parameters()), []
    for step in range(3):
        losses, forward = forwarded(module, x, y, "unequal-widths")
        again = again_of(module, x, y, "unequal-widths", calls)
        forward = Forward(forward.outputs, forward.columns, None, again)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gradients = engine.differentiate(losses, parameters, forward)
        texts = [str(c.message) for c in caught]
        assert len(texts) == (step == 0)
        assert all("second forward pass of some rows" in t and "exact route" in t for t in texts)
        check_all(gradients, AutogradGradients(losses, parameters).jacobian)
    assert len(calls) == 1


def test_without_a_way_to_look_again_the_budget_is_exact():
    module, x, y, jacobian = known("conv", 40, "unequal-widths")
    losses, forward = forwarded(module, x, y, "unequal-widths")
    for about in (None, forward):
        gradients = Budget(rows=5).differentiate(losses, trainable(module), about)
        check_all(gradients, jacobian)


# the features


class Heads(nn.Module):
    """A trunk and heads of any kind, with two features that only some heads read."""

    def __init__(self, head):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(D, 5), nn.Tanh())
        widths = [c.stop - c.start for c in SLICES["unequal-widths"]]
        self.heads = nn.ModuleList([head(width) for width in widths])
        self.spare = nn.Linear(5, 1)

    def features(self, x):
        return self.trunk(x)

    def outputs(self, z):
        a, b, c = (head(z) for head in self.heads)
        return torch.cat([a, b, self.spare(z), c], 1)

    def forward(self, x):
        return self.outputs(self.features(x))

    def shared_parameters(self):
        return self.trunk.parameters()


class Fused(HardSharing):
    def __init__(self, **options):
        super().__init__(D, W, (5, 4), activation="tanh", **options)

    def features(self, x):
        return self.trunk(x)

    def outputs(self, z):
        return self.head(z) + (0 if self.skip is None else self.skip(self.x))

    def forward(self, x):
        self.x = x
        return super().forward(x)


def deep(width):
    return nn.Sequential(nn.Linear(5, 3), nn.GELU(), nn.Linear(3, width))


HEADED = {
    "fused": Fused,
    "fused-without-bias": lambda: Fused(bias=False),
    "fused-and-skip": lambda: Fused(skip=True),
    "separate": lambda: Heads(lambda width: nn.Linear(5, width)),
    "deep": lambda: Heads(deep),
}


@pytest.mark.parametrize("columns", ["one-column-each", "unequal-widths", "one-task"])
@pytest.mark.parametrize("name", HEADED)
def test_the_gramian_over_the_features(name, columns):
    module, x, y = made(HEADED[name]), numbers(9, D), numbers(9, W)
    shared = list(module.shared_parameters())
    own = [p for p in module.parameters() if not any(p is q for q in shared)]
    losses, forward = forwarded(module, x, y, columns)
    z = module.features(x).detach().requires_grad_()
    over = AutogradGradients(task_losses(module.outputs(z), y, SLICES[columns]), [z]).gramian()
    jacobian = AutogradGradients(losses, (*shared, *own)).jacobian
    # by the formula where there is one, and by the edges; alone, and as in a step
    for about, alone in ((forward, True), (None, True), (forward, False), (None, False)):
        with torch.set_grad_enabled(alone):
            gradients = Features().differentiate(losses, shared, about, own)
            for _ in range(2):
                close(gradients.gramian(), over)
                for check in (check_combine, check_combine_by_tensor):
                    check(gradients, jacobian[: len(shared)], None)
                check_own(gradients, jacobian, (own, jacobian[len(shared) :]))
            w = numbers(len(losses))
            close(gradients.products(w), over @ w)
        with pytest.raises(NotImplementedError, match="gramian='features' knows no"):
            gradients.block_norms()


class TwoTrunks(nn.Module):
    """Heads that read one or the other of two features."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(D, 3), nn.Linear(D, 2)
        self.first, self.last = nn.Linear(3, 3), nn.Linear(2, 4)

    def outputs(self, za, zb):
        return torch.cat([self.first(za), self.last(zb)], 1)

    def forward(self, x):
        return self.outputs(torch.tanh(self.a(x)), torch.sigmoid(self.b(x)))


def test_heads_may_read_several_features():
    module, x, y = made(TwoTrunks), numbers(9, D), numbers(9, W)
    shared = [*module.a.parameters(), *module.b.parameters()]
    own = [*module.first.parameters(), *module.last.parameters()]
    features = torch.tanh(module.a(x)), torch.sigmoid(module.b(x))
    z = [f.detach().requires_grad_() for f in features]
    over = task_losses(module.outputs(*z), y, SLICES["one-column-each"])
    over = AutogradGradients(over, z).gramian()
    losses, forward = forwarded(module, x, y, "one-column-each")
    with torch.no_grad():
        close(Features().differentiate(losses, shared, forward, own).gramian(), over)


@pytest.mark.parametrize("before", [nn.ReLU, nn.Identity, lambda: nn.Dropout(0.5)])
def test_what_heads_do_before_their_first_layer_hides_no_conflict(before):
    module = made(lambda: Heads(lambda width: nn.Sequential(before(), nn.Linear(5, width))))
    x, y = numbers(9, D), numbers(9, W)
    features = []
    module.trunk.register_forward_hook(lambda _, __, z: features.append(z))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        losses, forward = forwarded(module, x, y, "unequal-widths")
    over = AutogradGradients(losses, features).gramian()
    assert float((over - torch.diag(over.diagonal())).abs().max()) > 1e-3
    own = [*module.heads.parameters(), *module.spare.parameters()]
    gradients = Features().differentiate(losses, list(module.trunk.parameters()), forward, own)
    with torch.no_grad():
        close(gradients.gramian(), over)


class TwoTrunksOfTwo(nn.Module):
    """Two features, two heads on each, which begin with a function of their own."""

    def __init__(self):
        super().__init__()
        self.trunks = nn.ModuleList([nn.Linear(D, 3), nn.Linear(D, 4)])
        self.heads = nn.ModuleList(
            [nn.Sequential(nn.ReLU(), nn.Linear(p, 1)) for p in (3, 4, 3, 4)]
        )

    def forward(self, x):
        self.features = [torch.tanh(trunk(x)) for trunk in self.trunks]
        return torch.cat([head(self.features[i % 2]) for i, head in enumerate(self.heads)], 1)


def test_nor_where_they_do_it_on_several_features():
    module = made(TwoTrunksOfTwo)
    outputs = module(numbers(9, D))
    losses = (outputs - numbers(9, 4, seed=2)).square().mean(0)
    forward = Forward(outputs, Columns([slice(k, k + 1) for k in range(4)], 4))
    over = AutogradGradients(losses, module.features).gramian()
    assert [[float(g) != 0 for g in row] for row in over] == [
        [k % 2 == m % 2 for m in range(4)] for k in range(4)
    ]
    shared, own = list(module.trunks.parameters()), list(module.heads.parameters())
    with torch.no_grad():
        gradients = Features().differentiate(losses, shared, forward, own)
        close(gradients.gramian(), over)


@pytest.mark.parametrize(("name", "formula"), [("fused", True), ("fused-and-skip", False)])
def test_a_fused_head_is_not_differentiated_task_by_task(monkeypatch, name, formula):
    edges = []
    original = features_module.features_below
    monkeypatch.setattr(
        features_module, "features_below", lambda *a: edges.append(1) or original(*a)
    )
    module = made(HEADED[name])
    losses, forward = forwarded(module, numbers(9, D), numbers(9, W), "one-column-each")
    own = list(module.task_parameters(0))
    Features().differentiate(losses, list(module.trunk.parameters()), forward, own).gramian()
    assert len(edges) == (not formula)


def test_features_need_heads_on_top_of_them():
    module = made(HAND["mlp-tanh"])
    losses, forward = forwarded(module, numbers(9, D), numbers(9, W), "one-column-each")
    parameters = list(module.parameters())
    for own in ([], [nn.Parameter(torch.ones(2))]):
        with pytest.raises(ValueError, match="gramian='features' needs task parameters"):
            Features().differentiate(losses, parameters, forward, own).gramian()
    beside = made(lambda: HardSharing(D, W, ()))  # heads on the inputs: nothing is shared
    losses, forward = forwarded(beside, numbers(9, D), numbers(9, W), "one-column-each")
    with pytest.raises(ValueError, match="gramian='features' needs task parameters"):
        Features().differentiate(losses, [], forward, list(beside.parameters())).gramian()
    fused = made(Fused)  # the tasks own the head's bias alone: its weight is no feature
    shared = [*fused.trunk.parameters(), fused.head.weight]
    losses, forward = forwarded(fused, numbers(9, D), numbers(9, W), "one-column-each")
    with pytest.raises(ValueError, match="gramian='features' needs task parameters"):
        Features().differentiate(losses, shared, forward, [fused.head.bias]).gramian()
    module = made(HAND["residual"])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"task_parameters.*can use: auto, budget, exact, online"):
        Descent(module, optimizer, "MGDA", n_tasks=W, gramian="features")
    # without a Gramian there is nothing to refuse
    Descent(module, optimizer, "LinearScalarization", n_tasks=W, gramian="features")


# float32


@pytest.mark.parametrize("n", [8, 820], ids=["few-rows", "many-rows"])
def test_by_hand_in_float32_with_two_million_parameters(n):
    made_so = (nn.Linear(1000, 2000), nn.Tanh(), nn.Linear(2000, 2))
    module = made(lambda: nn.Sequential(*made_so), torch.float32)
    assert sum(p.numel() for p in module.parameters()) > 2e6
    x, y = numbers(n, 1000, dtype=torch.float32), numbers(n, 2, seed=2, dtype=torch.float32)
    outputs = module(x)
    losses = (outputs - y).square().mean(0)
    forward = Forward(outputs, Columns([slice(0, 1), slice(1, 2)], 2))
    gradients = build_engine("auto").differentiate(losses, list(module.parameters()), forward)
    assert type(gradients) is LinearGradients
    gramian = gradients.gramian()
    module.double()
    wide = (module(x.double()) - y.double()).square().mean(0)
    exact = AutogradGradients(wide, list(module.parameters())).gramian()
    scale = exact.diagonal().sqrt()
    assert float(((gramian - exact).abs() / scale / scale[:, None]).max()) <= 1e-6


# what a step costs, counted


class Counts:
    """How many passes went to the parameters, how many through the losses alone, and the rest."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.reset()
        grad, to_host = torch.autograd.grad, Descent._to_host

        def counted_grad(outputs, inputs, *args, **kwargs):
            many = inputs if isinstance(inputs, list | tuple) else [inputs]
            reaches = any(isinstance(t, nn.Parameter) for t in many)
            self.passes["net" if reaches else "losses"] += 1
            return grad(outputs, inputs, *args, **kwargs)

        def counted_to_host(live, *args):
            self.transfers += 1
            return to_host(live, *args)

        monkeypatch.setattr(torch.autograd, "grad", counted_grad)
        monkeypatch.setattr(Descent, "_to_host", counted_to_host)

    def reset(self):
        self.passes, self.transfers = {"net": 0, "losses": 0}, 0
        self.rows = []  # of each forward pass

    def watch(self, module):
        module.register_forward_hook(lambda _, args, __: self.rows.append(len(args[0])))


@pytest.fixture
def counts(monkeypatch):
    return Counts(monkeypatch)


def convolutional(n_tasks):
    return HardSharing(D, n_tasks, (5,), trunk="conv", input_shape=(1, 2, 3))


def linear(n_tasks):
    return HardSharing(D, n_tasks, (5, 4), activation="tanh")


def stepped(counts, make, n_tasks, gramian, aggregator="ConicGrad", *, steps=1, known=True, n=50):
    """Count what ``steps`` steps take after the first one, which also checks the net."""
    module = made(lambda: make(n_tasks))
    counts.watch(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    live = Descent(module, optimizer, aggregator, n_tasks=n_tasks, gramian=gramian)
    columns = Columns([slice(k, k + 1) for k in range(n_tasks)], n_tasks)
    x, y, records = numbers(n, D), numbers(n, n_tasks, seed=2), []

    def again(rows):
        some = slice(None) if rows is None else rows
        outputs = module(x[some])
        return (outputs - y[some]).square().mean(0), outputs

    for _ in range(1 + steps):
        losses, outputs = again(None)
        forward = Forward(outputs, columns, None, again) if known else None
        records.append(live.backward(losses, None, forward))
        if len(records) == 1:
            counts.reset()
        optimizer.step()
    return records[1:]


def cost(counts):
    return counts.passes["net"], counts.passes["losses"], len(counts.rows), counts.transfers


@pytest.mark.parametrize("n_tasks", [2, 40])
@pytest.mark.parametrize(
    ("make", "gramian", "expected"),
    [
        # passes to the parameters, through the losses alone (at most), forward passes, transfers
        (linear, "auto", lambda k: (0, 1, 1, 1)),
        (linear, "online", lambda k: (0, 1, 1, 0)),
        (linear, "budget", lambda k: (0, 1, 1, 1)),
        (linear, "features", lambda k: (1, 1, 1, 1)),
        (linear, {"name": "Exact", "route": "autograd"}, lambda k: (k + 1, 0, 1, 1)),
        (convolutional, "auto", lambda k: (k + 1, 0, 1, 1)),
        (convolutional, "online", lambda k: (2, 0, 2, 0)),
        (convolutional, {"name": "Budget", "rows": 9}, lambda k: (3, 0, 2, 1)),  # all tasks in one
        (convolutional, "features", lambda k: (1, 1, 1, 1)),
    ],
    ids=lambda p: str(getattr(p, "__name__", p)).replace("<lambda>", "-"),
)
def test_passes_and_transfers_of_a_step(counts, make, gramian, expected, n_tasks):
    stepped(counts, make, n_tasks, gramian)
    net, losses, forwards, transfers = expected(n_tasks)
    assert cost(counts) in ((net, losses, forwards, transfers), (net, 0, forwards, transfers))
    assert counts.rows[0] == 50
    if isinstance(gramian, dict) and gramian["name"] == "Budget":
        assert counts.rows[1:] == [9]


@pytest.mark.parametrize("n_tasks", [2, 40])
def test_a_scalarized_step_is_one_backward_pass(counts, n_tasks):
    for gramian in ("auto", "online", "budget", "features"):
        for make in (linear, convolutional):
            stepped(counts, make, n_tasks, gramian, "LinearScalarization")
            assert cost(counts) == (1, 0, 1, 1)


def test_passes_where_nothing_is_known_of_the_forward_pass(counts):
    stepped(counts, linear, 5, "auto", known=False)
    assert cost(counts) == (5 + 1, 0, 1, 1)
    stepped(counts, linear, 5, "online", known=False)
    assert cost(counts) == (2 + 1, 1, 1, 0)  # and a double backward pass for the progress


@pytest.mark.parametrize("gramian", ["auto", "online"])
def test_no_gradient_goes_through_a_linear_net(gramian):
    """A hook on hidden values sees every backward pass through them."""
    module, passes = made(lambda: linear(3)), []
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    live = Descent(module, optimizer, "ConicGrad", n_tasks=3, gramian=gramian)
    columns = Columns([slice(k, k + 1) for k in range(3)], 3)

    def watch(layer, args, h):
        h.register_hook(lambda g: passes.append(1))

    module.trunk[1].register_forward_hook(watch)
    for _ in range(3):
        passes.clear()
        outputs = module(numbers(9, D))
        live.backward((outputs - numbers(9, 3)).square().mean(0), None, Forward(outputs, columns))
    assert passes == []


@pytest.mark.parametrize("engine", ["exact", "budget", "features", "online"])
@pytest.mark.parametrize("make", [linear, convolutional])
def test_weights_are_computed_in_every_fourth_step(counts, make, engine):
    spec = {"name": engine, "every": 4}
    records = stepped(counts, make, 5, spec, steps=8)
    if engine == "online":  # the dual weights move where the task weights do
        weights = itertools.pairwise(r.weights.tolist() for r in records)
        same = [a == b for a, b in weights]
        assert same == [True, True, False, True, True, True, False]
        assert cost(counts)[3] == 0
    else:
        there = [r.gramian is not None for r in records]
        assert there == [False, False, False, True] * 2
        assert counts.transfers == 8  # of losses and, twice, of the Gramian
    passes = counts.passes["net"]
    if make is linear:
        assert passes == (8 if engine == "features" else 0)
    elif engine == "exact":
        assert passes == 2 * (5 + 1) + 6 * 2
    elif engine == "online":
        assert passes == 2 * 2 + 6 * 2
        assert len(counts.rows) == 8 + 2


def test_every_alone_means_the_exact_engine():
    engine = build_engine({"every": 4})
    assert type(engine) is Exact
    assert (engine.every, engine.route) == (4, "auto")
    with pytest.raises(ValueError, match="Exact: every=0 is not allowed"):
        build_engine({"every": 0})
    with pytest.raises(ValueError, match="Budget: rows=0 is not allowed"):
        build_engine({"name": "budget", "rows": 0})
    with pytest.raises(ValueError, match="Online: dual_lr=0 is not allowed"):
        build_engine({"name": "online", "dual_lr": 0})


def test_weights_that_are_kept_are_those_of_the_same_tasks():
    module = made(lambda: linear(3))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    live = Descent(module, optimizer, "MGDA", n_tasks=3, gramian={"every": 10})
    there = []
    for present in ([1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 1]):
        losses = (module(numbers(9, D)) - numbers(9, 3)).square().mean(0)
        record = live.backward(losses, present)
        there.append(record.gramian is not None)
        assert [k for k in range(3) if record.weights[k] != 0] == [
            k for k in range(3) if present[k] and record.weights[k] != 0
        ]
    assert there == [True, False, True, False, True]


# memory


class Largest(TorchDispatchMode):
    """Remembers the sizes of all tensors that are made."""

    def __init__(self):
        super().__init__()
        self.sizes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.sizes |= {t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)}
        return out


def sizes_of_a_step(gramian, n_tasks, n):
    """Return the sizes of the tensors of a second step, without the outputs and the like."""
    widths = (12, 14)
    module = made(lambda: HardSharing(D, n_tasks, widths), torch.float32)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    live = Descent(module, optimizer, "ConicGrad", n_tasks=n_tasks, gramian=gramian)
    columns = Columns([slice(k, k + 1) for k in range(n_tasks)], n_tasks)
    x, y = numbers(n, D, dtype=torch.float32), numbers(n, n_tasks, dtype=torch.float32)
    for _ in range(2):
        with Largest() as seen:
            outputs = module(x)
            losses = (outputs - y).square().mean(0)
            live.backward(losses, None, Forward(outputs, columns))
    return seen.sizes


@pytest.mark.parametrize("n", [8, 100])
def test_the_memory_of_an_online_step_by_hand_does_not_grow_with_the_tasks(n):
    few, many = (max(sizes_of_a_step("online", k, n)) for k in (2, 40))
    layers = {D * 12, 12 * 14}
    expected = max(2 * n * 14, 2 * sum(layers) + 2 * (12 + 14))  # two cotangents, two gradients
    assert few <= expected
    # two cotangents of the outputs, two gradients of the head
    assert many <= max(expected, 2 * n * 40, 2 * 40 * 14)


@pytest.mark.parametrize("n", [4, 100])
def test_the_exact_gramian_by_hand_never_holds_the_jacobian_where_that_is_large(monkeypatch, n):
    monkeypatch.setattr(linear_module, "HELD", 40 * 14)
    jacobian = 40 * 12 * 14  # of the widest layer
    sizes = sizes_of_a_step("auto", 40, n)
    # the cotangents of the widest layer, and the products of those of each row
    assert max(sizes) <= n * 40 * max(14, 40)
    assert (jacobian in sizes) <= (n * 40 * 14 > jacobian)
    # what is looked for would be seen
    assert jacobian in sizes_of_a_step({"name": "Exact", "route": "autograd"}, 40, n)
