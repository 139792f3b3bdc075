"""Muon against its definition in float64, its groups, its state, and task directions in a net."""

from __future__ import annotations

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from mtlsk import MultiTaskRegressor
from mtlsk.controllers import Controller
from mtlsk.descent import Descent
from mtlsk.engines import Forward
from mtlsk.gramian import effective_rank
from mtlsk.linear_graph import Columns
from mtlsk.modules import HardSharing
from mtlsk.optimizers import (
    AdamW,
    Muon,
    hidden_weights,
    momentum_of,
    muon_groups,
    optimizer_arguments,
    orthogonalize,
    set_option,
)
from mtlsk.taskmap import TaskMap

SHAPES = [(3, 4), (6, 2), (3, 4), (5,)]


def draws(n, shapes=SHAPES, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    make = [[torch.randn(s, generator=generator, dtype=dtype) for s in shapes] for _ in range(n)]
    return [[x.to(dtype) for x in row] for row in make]


def parameters(dtype=torch.float64):
    return [nn.Parameter(x) for x in draws(1, seed=0, dtype=dtype)[0]]


def take(optimizer, params, grads):
    for p, g in zip(params, grads, strict=True):
        p.grad = None if g is None else g.clone()
    optimizer.step()


class Reference:
    """One matrix by the formula of the docstring."""

    def __init__(self, p, lr=0.02, nesterov=True, steps=5, decay=0.0, rho=0.0):
        self.w, self.m = p.detach().clone(), torch.zeros_like(p)
        self.lr, self.nesterov, self.steps, self.decay, self.rho = lr, nesterov, steps, decay, rho

    def step(self, g, beta, direction=None):
        self.m = beta * self.m + (1 - beta) * g
        n = beta * self.m + (1 - beta) * g if self.nesterov else self.m
        if direction is not None:
            n = n + self.rho * n.norm() * direction
        rows, cols = n.shape
        self.w = (1 - self.lr * self.decay) * self.w
        self.w = self.w - self.lr * math.sqrt(max(1, rows / cols)) * orthogonalize(n, self.steps)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("steps", [3, 5])
def test_matrices_follow_the_definition_and_the_others_adamw(nesterov, decay, steps):
    params, twin = parameters(), parameters()
    optimizer = Muon(
        params,
        nesterov=nesterov,
        ns_steps=steps,
        weight_decay=decay,
        adamw_lr=0.05,
        betas=(0.8, 0.9),
    )
    expected = [Reference(p, 0.02, nesterov, steps, decay) for p in params[:3]]
    other = AdamW([twin[3]], lr=0.05, betas=(0.8, 0.9), weight_decay=decay)
    for t, grads in enumerate(draws(12)):
        beta = [0.95, 0.5, 0.0, 0.9][t % 4]
        optimizer.param_groups[0]["momentum"] = beta
        take(optimizer, params, grads)
        take(other, [twin[3]], [grads[3]])
        for p, r, g in zip(params, expected, grads, strict=False):
            r.step(g, beta)
            torch.testing.assert_close(p.detach(), r.w, rtol=1e-10, atol=1e-12)
        assert torch.equal(params[3], twin[3])


def test_the_defaults_are_the_source_s():
    optimizer = Muon(parameters())
    matrices, others = optimizer.param_groups
    assert {k: matrices[k] for k in ("lr", "momentum", "nesterov", "ns_steps", "weight_decay")} == {
        "lr": 0.02,
        "momentum": 0.95,
        "nesterov": True,
        "ns_steps": 5,
        "weight_decay": 0.0,
    }
    assert (others["lr"], others["betas"], others["weight_decay"]) == (3e-3, (0.9, 0.999), 0.0)
    assert momentum_of(optimizer) == "momentum"


def test_it_is_torchs_muon_in_float64_up_to_its_bfloat16():
    mine, theirs = parameters()[:3], parameters()[:3]
    a, b = Muon(mine), torch.optim.Muon(theirs, lr=0.02, weight_decay=0.0)
    for grads in draws(6):
        take(a, mine, grads[:3])
        take(b, theirs, grads[:3])
    for p, q, start in zip(mine, theirs, parameters(), strict=False):
        gap, way = (p - q).detach().norm(), (p - start).detach().norm()
        assert gap < 0.05 * way


def test_a_parameter_without_a_gradient_stays():
    params = parameters()
    optimizer = Muon(params, weight_decay=0.1)
    before = [p.detach().clone() for p in params]
    grads = draws(1)[0]
    take(optimizer, params, [None, *grads[1:3], None])
    assert torch.equal(params[0], before[0])
    assert torch.equal(params[3], before[3])
    assert not torch.equal(params[1], before[1])


def test_orthogonal_tasks_of_any_scale_move_alike():
    """Four rank-1 tasks, scales 100, 10, 1, .1: shares of the update, by Muon and by SGD."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(2, 8, 8, generator=generator, dtype=torch.float64)
    u, v = (torch.linalg.qr(m).Q[:, :4] for m in square)
    scales = torch.tensor([100.0, 10.0, 1.0, 0.1], dtype=torch.float64)
    gradient = u @ torch.diag(scales) @ v.T

    def shares(cls, **options):
        p = nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
        p.grad = gradient
        cls([p], lr=1.0, **options).step()
        way = -p.detach()
        return [float(u[:, k] @ way @ v[:, k] / way.norm()) for k in range(4)]

    assert shares(Muon) == pytest.approx([0.54, 0.54, 0.53, 0.36], abs=0.006)
    assert shares(Muon, ns_steps=30) == pytest.approx([0.5] * 4, abs=0.1)
    assert shares(torch.optim.SGD) == pytest.approx([0.995, 0.0995, 0.00995, 0.000995], rel=1e-2)


# groups


def test_plain_parameters_are_split_by_their_dimensions():
    params = [*parameters(), nn.Parameter(torch.zeros(2, 3, 1, 1))]
    optimizer = Muon(params)
    matrices, others = optimizer.param_groups
    assert [p.ndim for p in matrices["params"]] == [2, 2, 2]
    assert [p.ndim for p in others["params"]] == [1, 4]
    assert (matrices["use_muon"], others["use_muon"]) == (True, False)
    assert not {"betas", "eps", "fused"} & set(matrices)
    assert not {"momentum", "ns_steps", "adamw_lr"} & set(others)
    assert len(Muon(params[3:4]).param_groups) == 1


def test_a_group_is_taken_at_its_word():
    a, b, c, d = parameters()
    optimizer = Muon(
        [
            {"params": [a], "use_muon": True, "momentum": 0.5, "lr": 0.1},
            {"params": b, "use_muon": False, "lr": 0.2, "betas": (0.7, 0.9)},
            {"params": [c, d], "lr": 0.3},
        ],
        direction_preservation=0.0,
    )
    kinds = [(len(g["params"]), g["use_muon"], g["lr"]) for g in optimizer.param_groups]
    assert kinds == [(1, True, 0.1), (1, False, 0.2), (1, True, 0.3), (1, False, 0.3)]
    assert optimizer.param_groups[0]["momentum"] == 0.5
    assert optimizer.param_groups[1]["betas"] == (0.7, 0.9)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))], "adamw_lr": 1.0})
    assert optimizer.param_groups[-1]["lr"] == 0.02
    named = Muon([("a", nn.Parameter(torch.zeros(2, 2))), ("b", nn.Parameter(torch.zeros(2)))])
    assert [g["param_names"] for g in named.param_groups] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, ["lr=-1.0", "[0, inf)"]),
        ({"momentum": 1.0}, ["momentum=1.0", "[0, 1)"]),
        ({"ns_steps": 2.5}, ["ns_steps=2.5", "integer"]),
        ({"nesterov": "yes"}, ["nesterov='yes'", "True"]),
        ({"direction_preservation": -0.1}, ["direction_preservation=-0.1", "[0, inf)"]),
        ({"direction_preservation": math.inf}, ["direction_preservation=inf"]),
        ({"weight_decay": -1.0}, ["-1.0"]),
        ({"betas": (2.0, 0.9)}, ["2.0"]),
    ],
)
def test_an_option_out_of_its_domain_is_refused(options, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Muon(parameters(), **options)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_wrong_groups_are_refused():
    p, q = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"shape \(3,\).*use_muon=False"):
        Muon([{"params": [q, p], "use_muon": True}])
    with pytest.raises(ValueError, match="use_muon=False has no option 'ns_steps'"):
        Muon([{"params": [q], "use_muon": False, "ns_steps": 3}])
    with pytest.raises(ValueError, match="use_muon=True has no option 'betas'"):
        Muon([{"params": [q], "use_muon": True, "betas": (0.9, 0.9)}])
    with pytest.raises(ValueError, match="momentum=7"):
        Muon([{"params": [q], "momentum": 7.0}])
    q.grad = torch.zeros(2, 2).to_sparse()
    with pytest.raises(RuntimeError, match="use_muon=False"):
        Muon([q]).step()


def test_options_of_the_whole_go_where_they_belong():
    params = parameters()
    optimizer = Muon(params)
    matrices, others = optimizer.param_groups
    for name, value in {"lr": 1.0, "adamw_lr": 2.0, "momentum": 0.1, "betas": (0.2, 0.3)}.items():
        set_option(optimizer, name, value)
    set_option(optimizer, "weight_decay", 0.4)
    assert (matrices["lr"], others["lr"]) == (1.0, 2.0)
    assert (matrices["momentum"], others["betas"]) == (0.1, (0.2, 0.3))
    assert matrices["weight_decay"] == others["weight_decay"] == 0.4
    assert "betas" not in matrices
    assert "momentum" not in others
    set_option(optimizer, "momentum", 0.5, [1])
    assert others["betas"] == (0.5, 0.3)
    with pytest.raises(ValueError, match="did you mean 'momentum'"):
        set_option(optimizer, "momentun", 0.1)


def test_only_its_own_words_are_its_arguments():
    assert optimizer_arguments("muon", {"momentum": 0.5})[1] == {"momentum": 0.5}
    with pytest.raises(ValueError, match="Muon has no parameter 'amsgrad'"):
        optimizer_arguments("Muon", {"amsgrad": True})


# the interface of torch.optim


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_state_saved_mid_way_goes_on_bit_for_bit(dtype, at):
    params, other = parameters(dtype), parameters(dtype)
    first, second = Muon(params, fused=True), Muon(other, lr=0.5, fused=True)
    steps = draws(10, dtype=dtype)
    for t, grads in enumerate(steps[:at]):
        set_option(first, "betas", (0.5 + 0.04 * t, 0.9))
        take(first, params, grads)
    file = io.BytesIO()
    torch.save({"optimizer": first.state_dict(), "params": params}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second.load_state_dict(saved["optimizer"])
    with torch.no_grad():
        for p, q in zip(other, saved["params"], strict=True):
            p.copy_(q)
    pairs = [(first, params), (second, other)]
    pairs.append(pickle.loads(pickle.dumps((second, other))))
    pairs.append(copy.deepcopy((first, params)))
    for grads in steps[at:]:
        for optimizer, tensors in pairs:
            take(optimizer, tensors, grads)
        for _, tensors in pairs[1:]:
            assert all(torch.equal(p, q) for p, q in zip(params, tensors, strict=True))
    assert {*second.param_groups[0]} == {*first.param_groups[0]}


def test_a_closure_a_scheduler_and_hooks():
    AdamW(parameters()), Muon(parameters())  # torch wraps the step of every class it builds
    params, twin = parameters(), parameters()
    optimizer, plain, calls = Muon(params), Muon(twin), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    def loss(tensors):
        return sum((p**2).sum() for p in tensors)

    def closure():
        calls.append("closure")
        optimizer.zero_grad()
        value = loss(params)
        value.backward()
        return value

    for t in range(3):
        assert optimizer.step(closure).requires_grad
        scheduler.step()
        plain.zero_grad()
        loss(twin).backward()
        set_option(plain, "lr", 0.02 * 0.5**t)
        set_option(plain, "adamw_lr", 3e-3 * 0.5**t)
        plain.step()
    assert calls == ["before", "closure", "after"] * 3
    assert all(torch.equal(p, q) for p, q in zip(params, twin, strict=True))


def test_the_fused_part_is_adamw_s():
    both = []
    for fused in (True, None):
        params = parameters(torch.float32)
        optimizer = Muon(params, fused=fused)
        assert [g.get("fused") for g in optimizer.param_groups] == [None, fused]
        for grads in draws(5, dtype=torch.float32):
            take(optimizer, params, grads)
        both.append(params)
    for p, q in zip(*both, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


# effective rank


def test_effective_rank():
    identity = torch.eye(5, dtype=torch.float64)
    assert effective_rank(identity) == pytest.approx(5)
    assert effective_rank(1e-9 * identity[:3]) == pytest.approx(3)
    assert effective_rank(torch.ones(4, 6)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.zeros(2, 2)) == 0.0
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.inf]])))
    p = torch.tensor([3.0, 1.0]) / 4
    by_hand = math.exp(-float((p * p.log()).sum()))
    assert effective_rank(torch.diag(torch.tensor([3.0, -1.0]))) == pytest.approx(by_hand)


def test_statistics_are_of_the_momentum_matrices():
    params = parameters()
    optimizer = Muon(params)
    assert optimizer.statistics() == {}
    for grads in draws(3):
        take(optimizer, params, grads)
    ranks = [effective_rank(optimizer.state[p]["momentum_buffer"]) for p in params[:3]]
    assert optimizer.statistics() == {"effective_rank": pytest.approx(sum(ranks) / 3)}
    assert 1 < optimizer.statistics()["effective_rank"] < 3
    assert Muon([params[3]]).statistics() == {}


# which weights of a net


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.inner = nn.Embedding(5, 4), nn.Linear(4, 6)
        self.norm, self.free = nn.LayerNorm(6), nn.Parameter(torch.zeros(6, 6))
        self.twice, self.out = nn.Linear(6, 6), nn.Linear(6, 3)


def names(module, tensors):
    ids = {id(t) for t in tensors}
    return [name for name, p in module.named_parameters() if id(p) in ids]


def test_hidden_weights_are_those_of_linear_layers_that_are_no_output():
    module = HardSharing(4, 3, (8, 6), skip=True)
    shared = list(module.shared_parameters())
    assert names(module, hidden_weights(module, shared)) == ["trunk.0.weight", "trunk.2.weight"]
    module = Mixed()  # no protocol: the last layer defined is taken for the output
    everything = list(module.parameters())
    assert names(module, hidden_weights(module, everything)) == ["inner.weight", "twice.weight"]
    assert hidden_weights(nn.Linear(3, 2), nn.Linear(3, 2).parameters()) == []
    single = nn.Linear(3, 2)
    assert hidden_weights(single, list(single.parameters())) == []
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    assert names(tied, hidden_weights(tied, list(tied.parameters()))) == ["1.weight"]


def test_groups_for_muon():
    module = HardSharing(4, 3, (8,))
    hidden = hidden_weights(module, list(module.shared_parameters()))
    said = [{"params": [module.head.weight], "use_muon": True}]
    rest = [p for p in module.parameters() if p is not module.head.weight]
    groups = muon_groups([*said, {"params": rest, "momentum": 0.5, "lr": 0.1}], hidden)
    assert [names(module, g["params"]) for g in groups] == [
        ["head.weight"],
        ["trunk.0.weight"],
        ["trunk.0.bias", "head.bias"],
    ]
    assert [g.get("momentum") for g in groups] == [None, 0.5, None]
    assert [g.get("lr") for g in groups] == [None, 0.1, 0.1]
    flat = muon_groups(module.parameters(), hidden)
    assert [g["use_muon"] for g in flat] == [True, False]


# in the estimators

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)


def make(**params):
    small = {"hidden_layer_sizes": (8, 6), "max_epochs": 3, "batch_size": 16, "random_state": 0}
    return MultiTaskRegressor(**{**small, "optimizer": "Muon", "lr": 0.02, **params})


def weights(net):
    return [p.detach().clone() for p in net.module_.parameters()]


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(weights(a), weights(b), strict=True))


def test_a_net_gives_muon_its_trunk_and_adamw_the_rest():
    net = make(max_epochs=30, optimizer__adamw_lr=0.02).fit(X, Y)
    matrices, others = net.optimizer_.param_groups
    assert names(net.module_, matrices["params"]) == ["trunk.0.weight", "trunk.2.weight"]
    assert len(others["params"]) == 4
    assert (matrices["lr"], others["lr"], others["fused"]) == (0.02, 0.02, True)
    losses = net.history_[:, "train_loss"]
    assert losses[-1] < 0.5 * losses[0]
    ranks = net.history_[:, "effective_rank"]
    assert len(ranks) == 30
    assert all(type(r) is float and 1 <= r <= 6 for r in ranks)
    assert "effective_rank" not in make(optimizer="AdamW").fit(X, Y).history_[-1]
    linear = make(hidden_layer_sizes=()).fit(X, Y)
    assert [g["use_muon"] for g in linear.optimizer_.param_groups] == [False]


def test_a_net_of_one_s_own_and_patterns_of_names():
    layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    own = {"module": layers, "hidden_layer_sizes": (64, 64)}
    net = make(**own).fit(X, Y)
    assert names(net.module_, net.optimizer_.param_groups[0]["params"]) == ["0.weight", "2.weight"]
    pattern = [("4.weight", {"use_muon": True, "momentum": 0.5}), ("0.*", {"lr": 0.1})]
    net = make(**own, optimizer__param_groups=pattern).fit(X, Y)
    got = [(names(net.module_, g["params"]), g["lr"]) for g in net.optimizer_.param_groups]
    assert got == [
        (["4.weight"], 0.02),
        (["0.weight"], 0.1),
        (["0.bias"], 0.1),
        (["2.weight"], 0.02),
        (["2.bias", "4.bias"], 3e-3),
    ]
    assert net.optimizer_.param_groups[0]["momentum"] == 0.5


def test_live_parameters_mean_what_they_mean_at_the_start():
    later = {"lr": 0.01, "optimizer__adamw_lr": 0.02, "optimizer__momentum": 0.7}
    later |= {"optimizer__weight_decay": 0.1, "optimizer__ns_steps": 4}

    def groups(net):
        return [{k: v for k, v in g.items() if k != "params"} for g in net.optimizer_.param_groups]

    fitted = make().fit(X, Y)
    live = fitted.optimizer_
    fitted.set_params(**later)
    assert fitted.optimizer_ is live
    afresh = make(**later).fit(X, Y)
    assert groups(fitted) == groups(afresh)
    assert fitted.get_params()["lr"] == fitted.lr == 0.01
    assert groups(clone(fitted).fit(X, Y)) == groups(afresh)
    fitted.set_params(optimizer__lr=0.03)
    assert [g["lr"] for g in groups(fitted)] == [0.03, 0.02]
    fitted.set_params(optimizer__param_groups__1__lr=0.5)
    assert [g["lr"] for g in groups(fitted)] == [0.03, 0.5]
    before = groups(fitted)
    with pytest.raises(ValueError, match="bogus"):
        fitted.set_params(lr=0.9, optimizer__bogus=1)
    assert groups(fitted) == before


def test_pickle_and_saved_parameters_go_on_to_the_bit(tmp_path):
    whole = make(max_epochs=6).fit(X, Y)
    parts = make(max_epochs=3).fit(X, Y)
    pickled = pickle.loads(pickle.dumps(parts))
    files = {f"f_{name}": tmp_path / name for name in ("params", "optimizer", "history")}
    parts.save_params(**files)
    loaded = make(max_epochs=3).initialize_for(X, Y)
    loaded.load_params(**files)
    for net in (pickled, loaded):
        for _ in range(3):
            net.partial_fit(X, Y)
        assert same(net, whole)
        assert net.history_[:, "effective_rank"] == whole.history_[:, "effective_rank"]
    assert not same(parts, whole)


def test_it_can_be_searched():
    search = GridSearchCV(make(), {"optimizer": ["AdamW", "Muon"]}, cv=2).fit(X, Y)
    assert len(set(search.cv_results_["mean_test_score"])) == 2
    rho = {"optimizer__direction_preservation": [0.0, 0.2]}
    search = GridSearchCV(make(), rho, cv=2).fit(X, Y)
    assert len(set(search.cv_results_["mean_test_score"])) == 2


# direction preservation


class Two(nn.Module):
    """A trunk of two layers and fused heads; ``conv`` puts what only autograd knows before it."""

    def __init__(self, conv=False):
        super().__init__()
        first = [nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 1, 3, padding=1), nn.Flatten()]
        layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()]
        self.trunk = nn.Sequential(*(first if conv else []), *layers)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.trunk(x))

    def shared_parameters(self):
        return self.trunk.parameters()


def seeded(make, *args):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args).double()


XT, YT = torch.from_numpy(X[:24]).double(), torch.from_numpy(Y[:24]).double() * 3


def explicit(module, tasks=(0, 1, 2)):
    """Return D = (1/K) sum_k g_k / |g_k|_F of each shared tensor, by one backward a task."""
    shared = list(module.shared_parameters())
    losses = ((module(XT) - YT) ** 2).mean(0)
    gradients = [torch.autograd.grad(losses[k], shared, retain_graph=True) for k in tasks]
    return [sum(g / g.norm() for g in of_p) / len(tasks) for of_p in zip(*gradients, strict=True)]


def fed(module, optimizer, aggregator="MGDA", gramian="auto", present=None, **options):
    """Take the gradients of one step; return the feed."""
    descent = Descent(module, optimizer, aggregator, n_tasks=3, gramian=gramian, **options)
    outputs = module(XT)
    losses = ((outputs - YT) ** 2).mean(0)
    columns = Columns([slice(k, k + 1) for k in range(3)], 3)

    def again(rows):
        rows = slice(None) if rows is None else rows
        outputs = module(XT[rows])
        return ((outputs - YT[rows]) ** 2).mean(0), outputs

    descent.backward(losses, present, Forward(outputs, columns, None, again))
    return [optimizer.task_directions[p] for p in module.shared_parameters()]


def muon_for(module, rho=0.2, **options):
    hidden = hidden_weights(module, list(module.shared_parameters()))
    groups = muon_groups(module.parameters(), hidden)
    return Muon(groups, direction_preservation=rho, **options)


ROUTES = [
    ("MGDA", "auto"),
    ("MGDA", {"name": "Exact", "every": 3}),
    ("MGDA", {"name": "Exact", "route": "autograd"}),
    ("MGDA", {"name": "Budget", "rows": 24}),
    ("MGDA", "online"),
    ("ConicGrad", "online"),
    ("LinearScalarization", "auto"),
    ("LinearScalarization", "features"),  # no engine is used
]


@pytest.mark.parametrize(("aggregator", "gramian"), ROUTES, ids=str)
@pytest.mark.parametrize("conv", [False, True], ids=["by hand", "autograd"])
@pytest.mark.parametrize("tasks", [(0, 1, 2), (0, 2), (1,)], ids=str)
def test_every_engine_feeds_the_mean_of_the_unit_task_gradients(aggregator, gramian, conv, tasks):
    module = seeded(Two, conv)
    expected = explicit(module, tasks)
    present = [k in tasks for k in range(3)]
    for norm in ["native"] + ["mean"] * (gramian != "features"):  # which is refused
        got = fed(module, muon_for(module), aggregator, gramian, present, update_norm=norm)
        for d, e in zip(got, expected, strict=True):
            torch.testing.assert_close(d, e, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("conv", [False, True], ids=["by hand", "autograd"])
def test_the_budget_takes_norms_from_its_rows_and_gradients_from_all(conv):
    module = seeded(Two, conv)
    rows = slice(0, 24, 3)
    shared = list(module.shared_parameters())

    def gradients(rows):
        losses = ((module(XT[rows]) - YT[rows]) ** 2).mean(0)
        return [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]

    pairs = zip(gradients(slice(None)), gradients(rows), strict=True)
    expected = [
        sum(ratios) / 3
        for ratios in zip(
            *([g / s.norm() for g, s in zip(*pair, strict=True)] for pair in pairs), strict=True
        )
    ]
    got = fed(module, muon_for(module), gramian={"name": "Budget", "rows": 8})
    for d, e in zip(got, expected, strict=True):
        torch.testing.assert_close(d, e, rtol=1e-9, atol=1e-12)


def test_scales_and_groups_leave_directions_alone_but_a_scale_of_zero():
    module = seeded(Two)
    for options, tasks in (
        ({"scale": [1e-3, 5.0, 2.0]}, (0, 1, 2)),
        ({"groups": [[0, 2], [1]]}, (0, 1, 2)),
        ({"scale": [1.0, 0.0, 2.0]}, (0, 2)),
    ):
        got = fed(module, muon_for(module), task_map=TaskMap(3, **options))
        for d, e in zip(got, explicit(module, tasks), strict=True):
            torch.testing.assert_close(d, e, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_task_without_a_gradient_counts_and_gives_nothing(dtype):
    module = seeded(Two).to(dtype)
    for tiny in (0.0, 1e-42):
        optimizer = muon_for(module)
        descent = Descent(module, optimizer, "LinearScalarization", n_tasks=3)
        losses = ((module(XT.to(dtype)) - YT.to(dtype)) ** 2).mean(0)
        descent.backward(losses * torch.tensor([1.0, tiny, 1.0], dtype=dtype))
        ways = optimizer.task_directions.values()
        assert all(bool(d.isfinite().all()) and float(d.norm()) <= 1.0001 for d in ways)
        optimizer.step()


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("rho", [0.1, 2.0])
def test_a_run_with_directions_follows_the_definition(nesterov, rho):
    module = seeded(Two)
    optimizer = muon_for(module, rho, nesterov=nesterov)
    matrices = optimizer.param_groups[0]["params"]
    places = [i for i, p in enumerate(module.shared_parameters()) if p.ndim == 2]
    expected = [Reference(p, 0.02, nesterov, rho=rho) for p in matrices]
    for _ in range(5):
        directions = explicit(module)
        fed(module, optimizer)
        for r, p, i in zip(expected, matrices, places, strict=True):
            r.step(p.grad, 0.95, directions[i])
        optimizer.step()
        assert optimizer.task_directions is None  # for one step
        for r, p in zip(expected, matrices, strict=True):
            torch.testing.assert_close(p.detach(), r.w, rtol=1e-9, atol=1e-11)


def test_without_it_nothing_is_asked_for_and_with_it_not_in_vain():
    params = parameters()
    plain = Muon(params)
    assert not plain.preserves_directions
    plain.task_directions = {params[0]: torch.full_like(params[0], torch.nan)}
    take(plain, params, draws(1)[0])  # rho = 0 does not look
    assert all(bool(p.isfinite().all()) for p in params)
    assert not Muon(params[3:], direction_preservation=0.1).preserves_directions  # no matrices
    needy = Muon(params, direction_preservation=0.1)
    before = [p.detach().clone() for p in params]
    with pytest.raises(RuntimeError, match=r"Descent.*set it to 0") as caught:
        take(needy, params, draws(1)[0])
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    needy.task_directions = {}  # matrices that no tasks share
    twin = parameters()
    with torch.no_grad():
        for p, q in zip(twin, params, strict=True):
            p.copy_(q)
    take(needy, params, draws(1)[0])
    take(Muon(twin), twin, draws(1)[0])
    assert all(torch.equal(p, q) for p, q in zip(params, twin, strict=True))


class Switch(Controller):
    """Turns direction preservation on in the third step."""

    def adjust(self, record, gradients):
        return {"optimizer__direction_preservation": 0.2} if record.step == 2 else {}


@pytest.mark.parametrize("aggregator", ["LinearScalarization", "MGDA"])
def test_a_controller_may_turn_it_on(aggregator):
    module = seeded(Two)
    optimizer = muon_for(module, 0.0)
    descent = Descent(module, optimizer, aggregator, Switch(), n_tasks=3)
    for step in range(4):
        expected = explicit(module)
        descent.backward(((module(XT) - YT) ** 2).mean(0))
        assert (optimizer.task_directions is None) == (step < 2)
        if step >= 2:
            got = list(optimizer.task_directions.values())
            for d, e in zip(got, expected, strict=True):
                torch.testing.assert_close(d, e, rtol=1e-9, atol=1e-12)
        optimizer.step()


def test_an_engine_without_block_norms_is_refused_before_training():
    wanted = "'features'.*direction_preservation of Muon.*auto, budget, exact, online"
    net = make(gramian="features", aggregator="MGDA", optimizer__direction_preservation=0.1)
    with pytest.raises(ValueError, match=wanted) as caught:
        net.fit(X, Y)
    assert "\n" not in str(caught.value)
    assert not net.initialized_
    module = seeded(Two)
    with pytest.raises(ValueError, match=wanted):
        Descent(module, muon_for(module), "MGDA", n_tasks=3, gramian="features")
    make(gramian="features", aggregator="MGDA").fit(X, Y)  # without it all is well
    make(gramian="features", optimizer__direction_preservation=0.1).fit(X, Y)  # losses only
    with pytest.raises(ValueError, match=wanted):
        net.set_params(aggregator="LinearScalarization", update_norm="mean").fit(X, Y)


@pytest.mark.parametrize("gramian", ["auto", "budget", "online"])
@pytest.mark.parametrize("aggregator", ["MGDA", "LinearScalarization"])
@pytest.mark.parametrize("missing", [False, True])
def test_nets_fit_with_it(gramian, aggregator, missing):
    y = Y.copy()
    if missing:
        y[::3, 1] = np.nan
        y[:16, 2] = np.nan
    options = {"gramian": gramian, "aggregator": aggregator, "iterator_train__shuffle": False}
    if aggregator == "LinearScalarization":
        options["gramian"] = "auto"
    plain = make(**options).fit(X, y)
    zero = make(**options, optimizer__direction_preservation=0.0).fit(X, y)
    light = make(**options, optimizer__direction_preservation=0.1).fit(X, y)
    assert same(plain, zero)
    assert not same(plain, light)
    gap = sum(float((a - b).norm()) for a, b in zip(weights(plain), weights(light), strict=True))
    assert 0 < gap < 2
