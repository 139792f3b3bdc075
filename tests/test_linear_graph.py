"""Nets of linear layers read off their graph: what is read, what is refused, what goes down and up.

``HAND`` and ``FALLBACK`` are the modules that the tests of the engines run through, too.
"""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from mtlsk.engines.linear import layer_gramian
from mtlsk.linear_graph import Columns, LinearGraph, Unrecognised, Workspace, leaves_beside
from mtlsk.linear_graph import workspace as workspace_module
from mtlsk.modules import ACTIVATIONS, HardSharing

D, W = 6, 7  # features and outputs of all modules here


class Trunk(HardSharing):
    """Hard sharing whose parameters are all shared."""

    shared_parameters = task_parameters = None

    def __init__(self, **options):
        super().__init__(D, W, **options)


class Residual(nn.Module):
    """Blocks x + f(x), f(x) + x + g(x), and an affine map from the inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(D, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.head, self.skip = nn.Linear(5, W), nn.Linear(D, W)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        z = self.b(h)
        h = h + torch.relu(z) + z  # z itself, and what is made of it
        h = self.c(h) + h + torch.sigmoid(h)
        return self.head(h) + self.skip(x)


class Beside(nn.Module):
    """Heads side by side on a trunk whose features are put together from two branches, too."""

    def __init__(self, widths=(1,) * W, deep=False):
        super().__init__()
        self.a, self.b = nn.Linear(D, 3), nn.Linear(D, 2)

        def head(width):
            return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, width))

        self.heads = nn.ModuleList([head(w) if deep else nn.Linear(5, w) for w in widths])

    def forward(self, x):
        h = torch.cat([torch.tanh(self.a(x)), self.b(x)], 1)
        return torch.cat([head(h) for head in self.heads], -1)


class Nested(nn.Module):
    """What stands side by side is summed, bent, used again and put side by side again."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(D, 2), nn.Linear(D, 1), nn.Linear(D, 3)
        self.last = nn.Linear(3, 4)

    def forward(self, x):
        pair = torch.cat([self.a(x), self.b(x)], 1)
        bent = torch.sigmoid(pair + self.c(x)) + pair
        return torch.cat([torch.relu(self.last(bent)), bent], 1)


class Constants(nn.Module):
    """Scaled by, multiplied with and added to what needs no gradient; both signs."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(D, 5), nn.Linear(5, W)
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5]))

    def forward(self, x):
        h = -self.a(x) * self.mask.expand(len(x), -1) * 0.3 + x[:, :5]
        return torch.exp(self.head(torch.sin(h)) * 0.2) + 1.0


class ReadTwice(nn.Module):
    """The last layer's outputs, and a function of them."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(D, 5), nn.Linear(5, W)

    def forward(self, x):
        z = self.head(torch.tanh(self.a(x)))
        return z + torch.tanh(z)


class Projected(nn.Module):
    """A frozen projection by a plain matrix product between two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(D, 5), nn.Linear(4, W)
        self.register_buffer("projection", torch.randn(5, 4))

    def forward(self, x):
        return self.head(torch.tanh(self.a(x) @ self.projection))


def mlp(act=nn.Tanh):
    layers = (nn.Linear(D, 5), act(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, W))
    return nn.Sequential(*layers)


def frozen(*names, module=mlp):
    made = module()
    for name in names:
        made.get_parameter(name).requires_grad_(False)
    return made


def linear_trunk():
    return nn.Sequential(nn.Linear(D, 5), nn.Linear(5, W))


HAND = {
    **{f"mlp-{a}": lambda a=a: Trunk(hidden_layer_sizes=(5, 4), activation=a) for a in ACTIVATIONS},
    "no-bias": lambda: Trunk(hidden_layer_sizes=(5, 4), bias=False),
    "skip": lambda: Trunk(hidden_layer_sizes=(5,), activation="tanh", skip=True),
    "no-hidden-layer": lambda: nn.Linear(D, W),
    "no-hidden-layer-skip": lambda: Trunk(hidden_layer_sizes=(), skip=True),
    "in-place": lambda: nn.Sequential(nn.Linear(D, 5), nn.ReLU(inplace=True), nn.Linear(5, W)),
    "outputs-bent": lambda: nn.Sequential(mlp(), nn.Softplus()),
    "residual": Residual,
    "heads-side-by-side": Beside,
    "heads-of-some-columns": lambda: Beside((2, 3, 2)),
    "deep-heads": lambda: Beside((2, 3, 2), deep=True),
    "nested": Nested,
    "constants": Constants,
    "last-layer-read-twice": ReadTwice,
    "projection": Projected,
    "wide": lambda: nn.Sequential(nn.Linear(D, 40), nn.SiLU(), nn.Linear(40, W)),
    "frozen-first-weight": lambda: frozen("0.weight"),
    "frozen-first-bias": lambda: frozen("0.bias"),
    "frozen-first-layer": lambda: frozen("0.weight", "0.bias"),
    "frozen-middle-weight": lambda: frozen("2.weight"),
    "frozen-middle-bias": lambda: frozen("2.bias"),
    "frozen-middle-layer": lambda: frozen("2.weight", "2.bias"),
    "frozen-last-weight": lambda: frozen("4.weight"),
    "frozen-last-layer": lambda: frozen("4.weight", "4.bias"),
    "frozen-all-but-a-bias": lambda: frozen("0.weight", "2.weight", "2.bias", "4.weight", "4.bias"),
    "frozen-first-weight-linear": lambda: frozen("0.weight", module=linear_trunk),
    "frozen-skip-weight": lambda: frozen("skip.weight", module=Residual),
    "frozen-residual-weight": lambda: frozen("a.weight", module=Residual),
}
"""Modules (n, D) -> (n, W) that are differentiated by hand."""


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(D, D), nn.Linear(D, W)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, W)

    def forward(self, x):
        return self.layer(torch.tanh(torch.tanh(self.layer(x)) @ self.layer.weight))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, W)

    def forward(self, x):
        return self.head(torch.tanh(self.table((x[:, :3].abs() * 3).long() % 5).mean(1)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, W)

    def forward(self, x):
        return self.head(self.cell(x.reshape(-1, 3, 2))[0][:, -1])


class Steps(nn.Module):
    """Linear layers on inputs of three dimensions."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(2, 4), nn.Linear(4, W)

    def forward(self, x):
        return self.head(torch.tanh(self.a(x.reshape(-1, 3, 2)))).mean(1)


class Gated(nn.Module):
    """A product of two branches, and a gate of one column that is broadcast."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.gate = nn.Linear(D, W), nn.Linear(D, W), nn.Linear(D, 1)

    def forward(self, x):
        return self.a(x) * torch.sigmoid(self.b(x)) + self.gate(x)


class Broadcast(nn.Module):
    """One column spread over all outputs by a factor without a gradient."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(D, 1)

    def forward(self, x):
        return self.a(x) * x.new_ones(len(x), W)


class Odd(nn.Module):
    """A layer with a bias that is broadcast in another way than a layer's."""

    def __init__(self, bias=(1, W)):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(W, D)), nn.Parameter(torch.randn(*bias))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight.t())


class MixedRows(nn.Module):
    """A product of matrices from the left."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(D, 4), nn.Linear(4, W)

    def forward(self, x):
        n = len(x)
        neighbours = torch.ones(n, n, dtype=x.dtype) / n
        return self.head(neighbours @ torch.tanh(self.a(x)))


class NotTransposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, W))

    def forward(self, x):
        return x @ self.weight


class Scaled(nn.Module):
    """A sum with a factor."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(D, W), nn.Linear(D, W)

    def forward(self, x):
        return torch.add(self.a(x), self.b(x), alpha=2)


class Stacked(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how = nn.Linear(D, W), nn.Linear(D, 5), how

    def forward(self, x):
        if self.how == "beside a constant":
            return torch.cat([self.b(x), x[:, :2]], 1)
        half = len(x) // 2
        return torch.cat([self.a(x[:half]), nn.functional.pad(self.b(x[half:]), (0, 2))])


def conv():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.SiLU(), nn.Flatten(), nn.Linear(8, W)
    )


def hooked():
    module = mlp()
    module[2].weight.register_hook(lambda g: 2 * g)
    return module


def watched():
    module = mlp()
    module[2].register_full_backward_hook(lambda *_: None)
    return module


FALLBACK = {
    "conv": conv,
    "embedding": Words,
    "batch-norm": lambda: nn.Sequential(
        nn.Linear(D, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, W)
    ),
    "layer-norm": lambda: nn.Sequential(nn.Linear(D, 5), nn.LayerNorm(5), nn.Linear(5, W)),
    "prelu": lambda: nn.Sequential(nn.Linear(D, 5), nn.PReLU(), nn.Linear(5, W)),
    "softmax": lambda: nn.Sequential(mlp(), nn.Softmax(1)),
    "recurrent": Recurrent,
    "layer-used-twice": Twice,
    "tied": Tied,
    "weight-norm": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(D, 5)), nn.Tanh(), nn.Linear(5, W)
    ),
    "three-dimensional": Steps,
    "gated": Gated,
    "broadcast": Broadcast,
    "bias-of-two-dimensions": Odd,
    "bias-of-one-number": lambda: Odd((1,)),
    "mixed-rows": MixedRows,
    "not-transposed": NotTransposed,
    "scaled-sum": Scaled,
    "beside-a-constant": lambda: Stacked("beside a constant"),
    "one-below-the-other": lambda: Stacked("one below the other"),
}
"""Modules (n, D) -> (n, W) that are not."""

HOOKED = {"hook-on-a-parameter": hooked, "backward-hook": watched}
"""Nor are these, whose gradients are what hooks make of them."""


def made(make, dtype=torch.float64, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().to(dtype)


def numbers(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def trainable(module):
    return [p for p in module.parameters() if p.requires_grad]


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **({"rtol": 1e-10, "atol": 1e-12} | tolerance))


@pytest.fixture(params=HAND, ids=str)
def read(request, monkeypatch):
    """Return a module, its outputs and their graph; all memory is used again."""
    monkeypatch.setattr(workspace_module, "FRESH", 1)
    module = made(HAND[request.param])
    outputs = module(numbers(9, D))
    return module, outputs, LinearGraph(outputs)


def gradients_of(graph, cotangents, parameters):
    """Return for each parameter D^T A or D^T 1 of cotangents D (n, R, q), shape (R, numel)."""
    found = {}
    for c, layer in zip(cotangents, graph.layers, strict=True):
        d = c if isinstance(c, torch.Tensor) else c.value
        if layer.weight is not None:
            found[id(layer.weight)] = torch.einsum("nrq,np->rqp", d, layer.input).flatten(1)
        if layer.bias is not None:
            found[id(layer.bias)] = d.sum(0)
    return [found[id(p)] for p in parameters]


def places(top_layers):
    return [(id(layer.weight), first) for layer, first in top_layers]


def expected_gradients(outputs, tops, parameters):
    """Return the same by autograd, one backward pass for each of the tops (n, R, W)."""
    rows = [
        torch.autograd.grad(outputs, parameters, top, retain_graph=True) for top in tops.unbind(1)
    ]
    return [torch.stack([row[i].flatten() for row in rows]) for i in range(len(parameters))]


# what is read


def test_every_parameter_is_in_one_layer(read):
    module, _, graph = read
    found = [p for layer in graph.layers for p in (layer.weight, layer.bias) if p is not None]
    assert sorted(map(id, found)) == sorted(map(id, trainable(module)))


@pytest.mark.parametrize("name", {**FALLBACK, **HOOKED})
def test_what_is_not_recognised(name):
    with pytest.raises(Unrecognised):
        LinearGraph(made({**FALLBACK, **HOOKED}[name])(numbers(9, D)))


def test_odd_outputs_are_not_recognised():
    x, module = numbers(9, D), made(mlp)
    outputs = module(x)
    shared_input = x.clone().requires_grad_()
    for odd in (outputs[:, 0], outputs.detach(), outputs[:, :3], outputs.T, module(shared_input)):
        with pytest.raises(Unrecognised):
            LinearGraph(odd)
    with pytest.raises(Unrecognised), torch.autocast("cpu", torch.bfloat16):
        LinearGraph(module.float()(x.float()))


def test_the_signature_tells_structures_apart():
    tanh, again, relu = (made(lambda act=a: mlp(act)) for a in (nn.Tanh, nn.Tanh, nn.ReLU))
    signatures = [LinearGraph(m(numbers(n, D))).signature for m, n in ((tanh, 9), (again, 4))]
    assert signatures[0] == signatures[1]
    assert signatures[0] != LinearGraph(relu(numbers(9, D))).signature


def test_dropout_is_elementwise():
    module = made(lambda: nn.Sequential(nn.Linear(D, 5), nn.Dropout(0.5), nn.Linear(5, W)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = module(numbers(9, D))
    graph, tops = LinearGraph(outputs), numbers(9, 2, W)
    mine = gradients_of(graph, graph.cotangents(tops), module.parameters())
    for a, b in zip(
        mine, expected_gradients(outputs, tops, list(module.parameters())), strict=True
    ):
        close(a, b)


def test_what_the_losses_reach_past_the_outputs():
    module, hidden = made(mlp), []
    module[1].register_forward_hook(lambda _, __, h: hidden.append(h))
    first, second = ([id(p) for p in module[i].parameters()] for i in (0, 2))
    alone = nn.Parameter(torch.ones(()))
    outputs = module(numbers(9, D))
    losses = outputs.square().mean(0)
    for added, expected in (
        (0, []),
        (outputs.sum(), []),
        (module[2].weight.square().sum(), second[:1]),
        (hidden[0].square().mean(), first),
        (alone * outputs.sum(), [id(alone)]),
    ):
        assert leaves_beside(losses + added, outputs) == set(expected)


# another pass of the same structure


def test_an_outline_fits_another_pass(read):
    module, _, graph = read
    outputs = module(numbers(4, D, seed=3))
    found = graph.outline().again(outputs)
    tops, parameters = numbers(4, 3, W), trainable(module)
    mine = gradients_of(found, found.cotangents(tops), parameters)
    for a, b in zip(mine, expected_gradients(outputs, tops, parameters), strict=True):
        close(a, b)
    directions = {id(p): numbers(*p.shape) for p in parameters}
    close(found.tangent(directions), LinearGraph(outputs).tangent(directions))
    assert found.signature == graph.signature
    assert places(found.top_layers) == places(graph.top_layers)


def test_an_outline_keeps_no_pass_alive():
    module, kept = made(lambda: mlp(nn.SiLU)), weakref.WeakSet()

    class Held:
        def __init__(self, value):
            self.value = value
            kept.add(self)

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.value):
        outputs = module(numbers(9, D))
    outline = LinearGraph(outputs).outline()
    assert len(kept) > 0
    del outputs
    gc.collect()
    assert len(kept) == 0
    assert outline.again(module(numbers(9, D))) is not None


class Switch(nn.Module):
    """One set of parameters, several structures."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, W)
        self.how = "plain"

    def forward(self, x):
        a, b = self.a, self.b
        if self.how == "swapped":
            a, b = b, a
        h = torch.tanh(a(x))
        if self.how == "another function":
            h = torch.sigmoid(a(x))
        if self.how == "one more function":
            h = torch.tanh(h)
        if self.how == "without a layer":
            return self.head(h)
        if self.how == "skipping":
            return self.head(torch.tanh(b(h)) + h)
        if self.how == "scaled weight":
            return self.head(torch.tanh(nn.functional.linear(h, 2 * b.weight, b.bias)))
        if self.how == "scaled product":
            return self.head(torch.tanh(torch.mm(h, 2 * b.weight) + b.bias))
        if self.how == "no transpose":
            return self.head(torch.tanh(torch.addmm(b.bias, h, b.weight * 2)))
        if self.how == "half a bias":
            return self.head(torch.tanh(torch.addmm(b.bias, h, b.weight.t(), beta=0.5)))
        if self.how == "twice":
            return self.head(torch.tanh(a(h)))
        if self.how == "constant bias":
            return self.head(torch.tanh(nn.functional.linear(h, b.weight, b.bias.detach())))
        if self.how == "constant weight":
            return self.head(torch.tanh(nn.functional.linear(h, b.weight.detach(), b.bias)))
        if self.how == "cut":
            return self.head(torch.tanh(b(h.detach())))
        return self.head(torch.tanh(b(h)))


@pytest.mark.parametrize(
    "how",
    [
        *("swapped", "another function", "one more function", "without a layer", "skipping"),
        *("scaled weight", "scaled product", "no transpose", "half a bias", "twice"),
        *("constant bias", "constant weight", "cut"),
    ],
)
def test_an_outline_does_not_fit_another_structure(how):
    module = made(Switch)
    x = numbers(9, D)
    outline = LinearGraph(module(x)).outline()
    assert outline.again(module(x)) is not None
    module.how = how
    assert outline.again(module(x)) is None
    module.how = "plain"
    module.b.weight.register_hook(lambda g: g)
    assert outline.again(module(x)) is None


# what goes down


def test_cotangents_are_those_of_autograd(read):
    module, outputs, graph = read
    parameters, tops = trainable(module), numbers(9, 3, W)
    before = tops.clone()
    for _ in range(2):  # nothing that is used again has been changed
        mine = gradients_of(graph, graph.cotangents(tops), parameters)
        for a, b in zip(mine, expected_gradients(outputs, tops, parameters), strict=True):
            close(a, b)
    assert torch.equal(tops, before)


SLICES = {
    "one-column-each": [slice(k, k + 1) for k in range(W)],
    "unequal-widths": [slice(0, 2), slice(2, 3), slice(4, 7)],
    "some-columns": [slice(1, 2), slice(3, 4), slice(6, 7)],
    "another-order": [slice(4, 7), slice(2, 3), slice(0, 2)],
    "one-task": [slice(0, W)],
}


def spread(top, slices, first=0):
    """Return one cotangent (n, K, q) a task of (n, q), columns from ``first`` on: 0 but its own."""
    full = top.new_zeros(len(top), len(slices), top.shape[1])
    for k, c in enumerate(slices):
        for column in range(c.start, c.stop):
            if 0 <= column - first < top.shape[1]:
                full[:, k, column - first] = top[:, column - first]
    return full


def of_all_tasks(c, slices):
    """Return the cotangents (n, K, q) of all tasks that a compact one stands for."""
    if c.value.ndim == 3:
        return c.value
    if c.task < 0:
        return spread(c.value, slices, c.first)
    full = c.value.new_zeros(len(c.value), len(slices), c.value.shape[1])
    full[:, c.task] = c.value
    return full


@pytest.mark.parametrize("slices", SLICES.values(), ids=SLICES)
def test_cotangents_of_tasks_that_share_a_matrix(read, slices):
    module, outputs, graph = read
    parameters = trainable(module)
    columns = Columns(slices, W)
    tops = spread(numbers(9, W), slices)
    shared = tops.sum(1)
    for _ in range(2):
        whole = [of_all_tasks(c, slices) for c in graph.cotangents(shared, columns)]
        mine = gradients_of(graph, whole, parameters)
        for a, b in zip(mine, expected_gradients(outputs, tops, parameters), strict=True):
            close(a, b)
    close(shared, tops.sum(1), rtol=0, atol=0)


def test_layers_with_nothing_linear_above_share_one_matrix():
    module = made(lambda: Trunk(hidden_layer_sizes=(5,), skip=True))
    graph = LinearGraph(module(numbers(9, D)))
    columns = Columns(SLICES["one-column-each"], W)
    shapes = {}
    for c, layer in zip(graph.cotangents(numbers(9, W), columns), graph.layers, strict=True):
        shapes[id(layer.weight)] = tuple(c.value.shape)
    assert shapes[id(module.head.weight)] == shapes[id(module.skip.weight)] == (9, W)
    assert shapes[id(module.trunk[0].weight)] == (9, W, 5)


def test_the_layers_on_top():
    def on_top(module):
        names = {id(p): n for n, p in module.named_parameters()}
        graph = LinearGraph(module(numbers(9, D)))
        return {(names[id(layer.weight)], first) for layer, first in graph.top_layers}

    assert on_top(made(lambda: Trunk(hidden_layer_sizes=(5,), skip=True))) == {
        ("head.weight", 0),
        ("skip.weight", 0),
    }
    assert on_top(made(lambda: nn.Sequential(mlp(), nn.Softplus()))) == set()
    assert on_top(made(ReadTwice)) == set()
    assert on_top(made(lambda: Beside((2, 3, 2)))) == {
        *(("heads.0.weight", 0), ("heads.1.weight", 2), ("heads.2.weight", 5))
    }
    assert on_top(made(lambda: Beside((2, 3, 2), deep=True))) == {
        *(("heads.0.2.weight", 0), ("heads.1.2.weight", 2), ("heads.2.2.weight", 5))
    }


def test_some_rows_are_the_graph_of_these_rows(read):
    module, _, graph = read
    rows = slice(0, 9, 2)
    part, tops = graph.rows(rows), numbers(5, 2, W)
    outputs = module(numbers(9, D)[rows])
    mine = gradients_of(part, part.cotangents(tops), trainable(module))
    for a, b in zip(mine, expected_gradients(outputs, tops, trainable(module)), strict=True):
        close(a, b)
    assert places(part.top_layers) == places(graph.top_layers)


def test_what_has_another_name_is_not_overwritten(monkeypatch):
    monkeypatch.setattr(workspace_module, "FRESH", 1)
    graph = LinearGraph(made(mlp)(numbers(9, D)))
    first = graph.cotangents(numbers(9, 3, W), name="first")
    kept = [c.value.clone() for c in first]
    graph.cotangents(numbers(9, 3, W, seed=2), name="second")
    assert all(torch.equal(c.value, k) for c, k in zip(first, kept, strict=True))


# what goes up


@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("some", [False, True], ids=["all-move", "some-move"])
def test_the_tangent_is_that_of_forward_mode(read, some, n):
    module, _, _ = read
    outputs = module(numbers(n, D))
    moving = trainable(module)[:: 2 if some else 1]
    directions = [numbers(*p.shape, seed=i) for i, p in enumerate(moving)]
    before = [d.clone() for d in directions]
    tangent = LinearGraph(outputs).tangent(
        {id(p): d for p, d in zip(moving, directions, strict=True)}
    )
    assert all(torch.equal(d, b) for d, b in zip(directions, before, strict=True))
    tops = numbers(n, 4, W)
    rows = [
        sum(
            (g * d).sum()
            for g, d in zip(
                torch.autograd.grad(outputs, moving, top, retain_graph=True),
                directions,
                strict=True,
            )
        )
        for top in tops.unbind(1)
    ]
    mine = (tops * tangent.unsqueeze(1)).sum((0, 2))
    close(mine, torch.stack(rows))


def test_nothing_moves_where_no_parameter_does(read):
    _, _, graph = read
    assert graph.tangent({}) is None


# the Gramian of a layer


@pytest.mark.parametrize("n", [2, 60], ids=["few-rows", "many-rows"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weight", [False, True])
def test_both_sides_of_a_layer_s_gramian(monkeypatch, n, bias, weight):
    monkeypatch.setattr(workspace_module, "FRESH", 1)
    d, a = numbers(n, 3, 5), numbers(n, 4, seed=2)
    j = torch.einsum("nkq,np->kqp", d, a).flatten(1) if weight else numbers(3, 0)
    expected = j @ j.T + (d.sum(0) @ d.sum(0).T if bias else 0)
    workspace = Workspace()
    for held in (1 << 22, 7):
        monkeypatch.setattr("mtlsk.engines.linear.HELD", held)
        monkeypatch.setattr("mtlsk.engines.linear.BLOCK", held)
        for _ in range(2):
            close(layer_gramian(d, a if weight else None, bias, workspace), expected)
    close(layer_gramian(d, a if weight else None, bias), expected)


# columns and memory


@pytest.mark.parametrize("slices", SLICES.values(), ids=SLICES)
def test_columns_spread_and_sum(slices):
    columns, k = Columns(slices, W), len(slices)
    values, rows, wide = numbers(k), numbers(2, k), numbers(W)
    for j, c in enumerate(slices):
        assert columns.of(values)[c].tolist() == [values[j]] * (c.stop - c.start)
        assert torch.equal(columns.of(rows)[:, c], rows[:, j : j + 1].expand(-1, c.stop - c.start))
    inside = torch.zeros(W, dtype=torch.float64)
    for c in slices:
        inside[c] = wide[c]
    close(columns.sums(inside), torch.stack([wide[c].sum() for c in slices]))
    assert len(columns) == k
    assert columns.single == (slices == SLICES["one-column-each"])
    assert copy.deepcopy(columns).slices == columns.slices


def test_memory_is_used_again():
    workspace, like = Workspace(), torch.zeros(1)
    large = workspace_module.FRESH * 2
    first = workspace.empty("a", (2, large // 2), like)
    smaller = workspace.empty("a", (large // 2,), like)
    other = workspace.empty("b", (large,), like)
    assert first.data_ptr() == smaller.data_ptr() != other.data_ptr()
    wide = workspace.empty("a", (large,), like.double())
    assert (wide.dtype, wide.shape) == (torch.float64, (large,))
    assert workspace.empty("a", (large * 2,), like).shape == (large * 2,)
    assert workspace.empty("a", (3,), like).data_ptr() != smaller.data_ptr()


def test_memory_does_not_grow_with_the_number_of_batch_sizes():
    module, workspace = made(mlp), Workspace()

    def held(sizes):
        for n in sizes:
            LinearGraph(module(numbers(n, D)), workspace).cotangents(numbers(n, 2, W))
        return sum(t.numel() for t in workspace._flat.values())

    once = held([200])
    assert held(range(100, 200)) <= 4 * once
