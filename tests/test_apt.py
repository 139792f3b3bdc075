"""APT: the map, the moment it acts, and the host optimizer it becomes at equal bounds."""

from __future__ import annotations

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from mtlsk import MultiTaskRegressor
from mtlsk.controllers import APT
from mtlsk.controllers.apt import cosine, momentum
from mtlsk.descent import Descent
from mtlsk.modules import HardSharing
from mtlsk.optimizers import SGD, Adam, AdamW, Muon, NAdam, RAdam
from mtlsk.testing import check_controller


class Vector(nn.Module):
    """One shared vector whose losses may have any gradients."""

    def __init__(self, size=6, dtype=torch.float64):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(size, dtype=dtype))

    def losses(self, gradients):
        """Return losses of value 0 with these gradients (K, size)."""
        return gradients @ self.theta - (gradients @ self.theta).detach()


def run(gradients, beta_min=0.2, beta_max=0.9, dtype=torch.float64):
    """Return the momenta that single-task gradients, one a step, lead to."""
    module = Vector(len(gradients[0]), dtype)
    optimizer = Adam(module.parameters(), lr=0.0)
    descent = Descent(module, optimizer, controller=APT(beta_min, beta_max), n_tasks=1)
    betas = []
    for g in gradients:
        descent.backward(module.losses(torch.as_tensor(g, dtype=dtype)[None]))
        betas.append(optimizer.param_groups[0]["betas"][0])
    return betas


def walk(n, seed=0, size=6):
    return np.random.default_rng(seed).standard_normal((n, size))


def net(dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
        x = torch.randn(20, 16, 4, dtype=dtype)
        y = torch.randn(20, 16, 3, dtype=dtype)
    return module, list(zip(x, y, strict=True))


OPTIONS = [
    {"reference": reference, "map": map_, "scope": scope}
    for reference in ("gradient", "momentum")
    for map_ in ("affine", "relu")
    for scope in ("global", "tensor")
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()))
def test_the_contract(options):
    check_controller(APT(**options))
    check_controller(APT(beta_min=0.0, beta_max=0.0, **options))
    check_controller(APT(**options), lambda p: SGD(p, lr=0.01, momentum=0.9, dampening=0.9))
    for cls in (Adam, NAdam, RAdam, Muon):
        check_controller(APT(**options), lambda p, cls=cls: cls(p, lr=0.01))


def test_the_first_step_takes_the_lower_bound():
    assert run(walk(1))[0] == 0.2
    assert run(walk(1), 0.0, 0.5)[0] == 0.0


def test_the_momentum_is_affine_in_the_cosine_of_successive_gradients():
    g = walk(30)
    expected = [0.2] + [
        0.2 + 0.7 * (1 + a @ b / np.linalg.norm(a) / np.linalg.norm(b)) / 2
        for a, b in zip(g[1:], g[:-1], strict=True)
    ]
    betas = run(g)
    np.testing.assert_allclose(betas, expected, rtol=1e-12)
    assert all(0.2 <= b <= 0.9 for b in betas)


def test_the_same_gradient_takes_the_upper_bound_and_an_opposite_one_the_lower():
    g = walk(1)[0]
    betas = run([g, g, 3.0 * g, -g, -0.1 * g, g])
    assert betas == pytest.approx([0.2, 0.9, 0.9, 0.2, 0.9, 0.2], abs=1e-15)
    assert all(0.2 <= b <= 0.9 for b in betas)


def test_it_is_monotone_in_the_cosine():
    betas = []
    for angle in np.linspace(0, math.pi, 50):
        betas.append(run([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])[1])
    assert np.all(np.diff(betas) < 0)
    assert betas[25] == pytest.approx(0.55, abs=0.02)  # orthogonal: half way


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_it_knows_no_units(scale, dtype):
    np.testing.assert_allclose(run(scale * walk(10), dtype=dtype), run(walk(10)), atol=1e-6)
    # and none of a single step
    mixed = walk(10)
    mixed[::2] *= scale
    np.testing.assert_allclose(run(mixed, dtype=dtype), run(walk(10)), atol=1e-6)


def test_a_zero_gradient_has_no_angle():
    zero = torch.zeros(3)
    assert cosine(zero, torch.ones(3)) == cosine(torch.ones(3), zero) == cosine(zero, zero) == 0.0
    betas = run([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert betas == pytest.approx([0.2, 0.55, 0.55])


def test_cosine_and_momentum_stay_in_their_ranges():
    for seed in range(50):
        v = torch.from_numpy(walk(1, seed)[0])
        assert -1 <= cosine(v, 7 * v) <= 1
        assert -1 <= cosine(v, -0.3 * v) <= 1
        assert cosine(v, 7 * v) == pytest.approx(1, abs=1e-14)
    for low, high in ((0.1, 0.3), (0.0, 0.999), (0.7, 0.7)):
        for s in np.linspace(-1, 1, 101):
            assert low <= momentum(low, high, s) <= high
    assert momentum(0.3, 0.3, 0.123) == 0.3


HOSTS = {
    "SGD": (
        lambda p, b: SGD(p, lr=0.1, momentum=0.33, dampening=0.1),
        lambda p, b: torch.optim.SGD(p, lr=0.1, momentum=b, dampening=b),
    ),
    "Adam": (
        lambda p, b: Adam(p, lr=0.01),
        lambda p, b: torch.optim.Adam(p, lr=0.01, betas=(b, 0.999)),
    ),
    "AdamW": (
        lambda p, b: AdamW(p, lr=0.01, weight_decay=0.1),
        lambda p, b: torch.optim.AdamW(p, lr=0.01, betas=(b, 0.999), weight_decay=0.1),
    ),
    "NAdam": (
        lambda p, b: NAdam(p, lr=0.01),
        lambda p, b: torch.optim.NAdam(p, lr=0.01, betas=(b, 0.999)),
    ),
    "RAdam": (
        lambda p, b: RAdam(p, lr=0.01),
        lambda p, b: torch.optim.RAdam(p, lr=0.01, betas=(b, 0.999)),
    ),
    "Muon": (
        lambda p, b: Muon(p, lr=0.02),
        lambda p, b: Muon(p, lr=0.02, momentum=b, betas=(b, 0.999)),
    ),
}


@pytest.mark.parametrize("host", list(HOSTS))
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_at_equal_bounds_it_is_the_host_bit_for_bit(host, beta, dtype, scope):
    module, batches = net(dtype)
    twin = copy.deepcopy(module)
    driven, plain = HOSTS[host]
    apt = APT(beta, beta, scope=scope, reference="momentum" if scope == "tensor" else "gradient")
    steps = [
        Descent(module, driven(module.parameters(), beta), "MGDA", apt, n_tasks=3),
        Descent(twin, plain(twin.parameters(), beta), "MGDA", n_tasks=3),
    ]
    for x, y in batches:
        for descent, m in zip(steps, (module, twin), strict=True):
            descent.backward(((m(x) - y) ** 2).mean(0))
            descent.optimizer.step()
        for p, q in zip(module.parameters(), twin.parameters(), strict=True):
            assert torch.equal(p, q)


# ---- options


def heads_apart(dtype=torch.float64):
    """Return a net with two shared layers and a head that is not shared, and its batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = HardSharing(4, 3, (5, 4), "tanh").to(dtype)
    return module, net(dtype)[1]


def buffers(optimizer, parameters):
    states = [optimizer.state.get(p, {}) for p in parameters]
    found = [s.get("momentum_buffer", s.get("exp_avg")) for s in states]
    return None if found[0] is None else [m.clone() for m in found]


@pytest.mark.parametrize("host", list(HOSTS))
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()))
def test_every_option_is_its_formula_on_every_host(host, options):
    module, batches = heads_apart()
    optimizer = HOSTS[host][0](module.parameters(), 0.0)
    shared = list(module.shared_parameters())
    descent = Descent(module, optimizer, "MGDA", APT(0.2, 0.9, **options), n_tasks=3)
    heads = {id(p) for p in module.head.parameters()}
    one_each, previous, seen = options["scope"] == "tensor", None, []
    for x, y in batches[:6]:
        held = buffers(optimizer, shared) if options["reference"] == "momentum" else previous
        own = [g.get("betas", (g.get("momentum"),))[0] for g in optimizer.param_groups]
        record = descent.backward(((module(x) - y) ** 2).mean(0))
        previous = [d.clone() for d in record.direction]

        def cut(tensors):
            flat = [t.reshape(-1) for t in tensors]
            return flat if one_each else [torch.cat(flat)]

        expected = []
        for i, d in enumerate(cut(record.direction)):
            s = -1.0 if held is None else float(torch.cosine_similarity(d, cut(held)[i], dim=0))
            share = max(s, 0.0) if options["map"] == "relu" else (1 + s) / 2
            expected.append(0.2 + 0.7 * share)
        for group, before in zip(optimizer.param_groups, own, strict=True):
            beta = group["betas"][0] if "betas" in group else group["momentum"]
            if one_each and heads & {id(p) for p in group["params"]}:
                assert beta == before  # the tasks' own are left alone
                continue
            place = [id(p) for p in shared].index(id(group["params"][0])) if one_each else 0
            assert beta == pytest.approx(expected[place], abs=1e-12)
            assert 0.2 <= beta <= 0.9
            assert group.get("dampening", beta) == beta
            seen.append(beta)
        assert descent.controller.beta_ == pytest.approx(expected if one_each else expected[0])
        reasons = {change.reason for change in descent.changes.values()}
        assert len(reasons) == 1
        assert "cosine" in reasons.pop()
        optimizer.step()
    assert len({round(b, 6) for b in seen}) >= 5 - 2 * (options["map"] == "relu")


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o.values()))
@pytest.mark.parametrize("host", list(HOSTS))
def test_every_option_knows_no_units_and_takes_the_bounds(options, host):
    both = []
    for scale in (1.0, 1e-6):
        module = Vector()
        optimizer = HOSTS[host][0](module.parameters(), 0.0)
        apt = APT(0.2, 0.9, **options)
        descent = Descent(module, optimizer, controller=apt, n_tasks=1)
        betas = []
        for row in [*walk(8), *([walk(1)[0]] * 200), -walk(1)[0]]:
            descent.backward(module.losses(scale * torch.from_numpy(row)[None]))
            beta = apt.beta_
            betas.append(beta[0] if isinstance(beta, list) else beta)
            optimizer.step()
        both.append(betas)
        assert betas[0] == 0.2
        assert betas[-2] == pytest.approx(0.9, abs=1e-3)  # the same gradient again and again
        assert betas[-1] == pytest.approx(0.2, abs=1e-3)  # and the opposite one
    np.testing.assert_allclose(*both, atol=1e-9)


def test_relu_takes_the_lower_bound_for_every_obtuse_angle_and_is_monotone():
    values = [momentum(0.2, 0.9, s, "relu") for s in np.linspace(-1, 1, 101)]
    assert values[:51] == [0.2] * 51
    assert np.all(np.diff(values[50:]) > 0)
    assert values[-1] == pytest.approx(0.9)
    assert momentum(0.2, 0.9, 0.5, "relu") == pytest.approx(0.55)


@pytest.mark.parametrize("host", ["Adam", "SGD", "Muon"])
def test_groups_are_split_once_and_each_shared_tensor_is_alone(host):
    module, _ = heads_apart()
    optimizer = HOSTS[host][0](module.named_parameters(), 0.0)
    for _ in range(2):
        Descent(module, optimizer, "MGDA", APT(scope="tensor"), n_tasks=3)
        groups = optimizer.param_groups
        assert sum(len(g["params"]) for g in groups) == 6
        # Muon takes matrices apart from the rest, of the head too
        rest = [1, 1] if host == "Muon" else [2]
        assert sorted(len(g["params"]) for g in groups) == [1, 1, 1, 1, *rest]
        names = dict(module.named_parameters())
        for g in groups:
            assert [names[n] for n in g["param_names"]] == g["params"]
        assert len({id(p) for g in groups for p in g["params"]}) == 6


def test_a_shared_tensor_that_the_optimizer_does_not_have_is_left_out():
    module, batches = heads_apart()
    optimizer = Adam(list(module.trunk[0].parameters()), lr=0.01)
    descent = Descent(module, optimizer, "MGDA", APT(scope="tensor"), n_tasks=3)
    for x, y in batches[:2]:
        descent.backward(((module(x) - y) ** 2).mean(0))
    assert list(descent.changes) == [f"optimizer__param_groups__{i}__momentum" for i in (0, 1)]


def test_muon_s_adamw_part_follows_too():
    module, batches = heads_apart()
    optimizer = Muon(module.parameters())
    descent = Descent(module, optimizer, "MGDA", APT(0.2, 0.9), n_tasks=3)
    for x, y in batches[:3]:
        descent.backward(((module(x) - y) ** 2).mean(0))
        matrices, others = optimizer.param_groups
        assert matrices["momentum"] == others["betas"][0] == descent.controller.beta_
        assert list(descent.changes) == [
            "optimizer__momentum",
            "optimizer__param_groups__1__momentum",
        ]
        optimizer.step()


def test_what_is_pickled_is_not_the_optimizer():
    module, batches = heads_apart()
    apt = APT(reference="momentum")
    descent = Descent(module, Adam(module.parameters()), "MGDA", apt, n_tasks=3)
    x, y = batches[0]
    descent.backward(((module(x) - y) ** 2).mean(0))
    again = pickle.loads(pickle.dumps(apt))
    assert again.state_dict() == apt.state_dict() == {"beta_": 0.5}
    assert len(pickle.dumps(apt)) < 2000


RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4)).astype(np.float32)
Y = np.c_[X @ [1.0, -1.0, 0.5, 0.0], X[:, 0] ** 2, np.sin(2 * X[:, 1])].astype(np.float32)


@pytest.mark.parametrize("host", list(HOSTS))
@pytest.mark.parametrize("options", OPTIONS[1::2], ids=lambda o: "-".join(o.values()))
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_three_epochs_and_three_more_are_six_to_the_bit(tmp_path, host, options, scope):
    def make(epochs):
        return MultiTaskRegressor(
            (6, 5),
            aggregator="MGDA",
            controller={"name": "APT", **options, "scope": scope},
            optimizer=host,
            lr=0.01,
            max_epochs=epochs,
            batch_size=16,
            random_state=0,
        )

    whole, parts = make(6).fit(X, Y), make(3).fit(X, Y)
    names = ("params", "optimizer", "history", "aggregator", "controller")
    files = {f"f_{name}": tmp_path / name for name in names}
    parts.save_params(**files)
    loaded = make(3).initialize_for(X, Y)
    loaded.load_params(**files)
    for live in (pickle.loads(pickle.dumps(parts)), loaded):
        for _ in range(3):
            live.partial_fit(X, Y)
        pairs = zip(live.module_.parameters(), whole.module_.parameters(), strict=True)
        assert all(torch.equal(p, q) for p, q in pairs)
        made, expected = (
            [[(c["name"], c["value"]) for c in row["changes"]] for row in net.history_]
            for net in (live, whole)
        )
        assert made == expected
    assert any(c["name"].endswith("momentum") for c in whole.history_[-1]["changes"])


def test_it_acts_in_the_very_step_it_is_computed_in():
    g = walk(6)
    module = Vector()
    optimizer = Adam(module.parameters(), lr=0.01)
    descent = Descent(module, optimizer, controller=APT(0.2, 0.9), n_tasks=1)
    expected = run(g)
    m = np.zeros(6)
    for beta, row in zip(expected, g, strict=True):
        descent.backward(module.losses(torch.from_numpy(row)[None]))
        optimizer.step()
        m = beta * m + (1 - beta) * row
        np.testing.assert_allclose(optimizer.state[module.theta]["exp_avg"].numpy(), m, rtol=1e-12)


@pytest.mark.parametrize("beta_min", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_sgd_momentum_and_dampening_are_driven_together(beta_min, dtype):
    g = walk(8)
    g[4] = -g[3]  # beta_min in the middle of training
    module = Vector(dtype=dtype)
    optimizer = SGD(module.parameters(), lr=0.1)
    descent = Descent(module, optimizer, controller=APT(beta_min, 0.9), n_tasks=1)
    betas, m, theta = run(g, beta_min, dtype=dtype), None, np.zeros(6)
    assert betas[4] == pytest.approx(beta_min, abs=1e-6)
    for beta, row in zip(betas, g, strict=True):
        descent.backward(module.losses(torch.as_tensor(row, dtype=dtype)[None]))
        optimizer.step()
        m = row if m is None else beta * m + (1 - beta) * row  # torch starts from the gradient
        theta = theta - 0.1 * m
        group = optimizer.param_groups[0]
        assert group["momentum"] == group["dampening"]
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        np.testing.assert_allclose(module.theta.detach().numpy(), theta, atol=tolerance)


def test_it_looks_at_the_aggregated_direction_over_all_shared_parameters():
    module, batches = net()
    optimizer = Adam(module.parameters(), lr=0.01)
    descent = Descent(module, optimizer, "MGDA", APT(0.0, 0.9), n_tasks=3)
    previous = None
    for x, y in batches[:5]:
        record = descent.backward(((module(x) - y) ** 2).mean(0))
        flat = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
        assert torch.equal(torch.cat([d.reshape(-1) for d in record.direction]), flat)
        if previous is not None:
            s = float(torch.cosine_similarity(flat, previous, dim=0))
            assert list(descent.changes) == ["optimizer__momentum"]
            value, reason = descent.changes["optimizer__momentum"]
            assert value == pytest.approx(0.45 * (1 + s))
            assert reason == "cosine of successive updates"
        previous = flat.clone()
        optimizer.step()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True), ["SGD", "nesterov=False"]),
        (lambda p: torch.optim.Adam(p), ["torch.optim.adam.Adam", "'Adam', 'AdamW'", "'Muon'"]),
        (lambda p: torch.optim.AdamW(p), ["bias correction", "'Adam', 'AdamW'"]),
        (lambda p: torch.optim.NAdam(p), ["torch.optim.nadam.NAdam", "by these names"]),
        (lambda p: torch.optim.Adamax(p), ["Adamax", "'AdamW'"]),
        (
            lambda p: torch.optim.Muon([nn.Parameter(torch.zeros(2, 2))]),
            ["torch.optim.Muon has none", "'Muon'"],
        ),
        (
            lambda p: SGD([{"params": list(p), "nesterov": True}], lr=0.1, momentum=0.9),
            ["SGD", "nesterov=False"],
        ),
        (lambda p: torch.optim.RMSprop(p), ["RMSprop", "'SGD'"]),
        (lambda p: torch.optim.Adagrad(p), ["Adagrad has none", "'SGD'"]),
    ],
    ids=[
        "nesterov",
        "torch-Adam",
        "torch-AdamW",
        "torch-NAdam",
        "Adamax",
        "torch-Muon",
        "nesterov-in-a-group",
        "RMSprop",
        "Adagrad",
    ],
)
def test_an_optimizer_it_cannot_drive_is_refused_before_the_first_step(make, words):
    module = Vector()
    with pytest.raises(ValueError, match="APT") as caught:
        Descent(module, make(module.parameters()), controller="APT", n_tasks=1)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_its_memory_survives_saving():
    g = walk(12)
    expected = run(g)
    module = Vector()
    optimizer = Adam(module.parameters(), lr=0.0)
    controller = APT(0.2, 0.9)
    for t, row in enumerate(g):
        descent = Descent(module, optimizer, controller=controller, n_tasks=1)
        descent.backward(module.losses(torch.from_numpy(row)[None]))
        assert optimizer.param_groups[0]["betas"][0] == expected[t]
        assert controller.beta_ == expected[t]
        file = io.BytesIO()
        torch.save(controller.state_dict(), file)
        file.seek(0)
        controller = clone(controller).load_state_dict(torch.load(file, weights_only=True))


def test_without_shared_parameters_there_is_no_angle():
    class Heads(nn.Linear):
        def shared_parameters(self):
            return iter(())

    module = Heads(3, 2)
    descent = Descent(module, Adam(module.parameters()), controller=APT(0.2, 0.9), n_tasks=2)
    for _ in range(2):
        descent.backward((module(torch.ones(4, 3)) ** 2).mean(0))
        beta = descent.optimizer.param_groups[0]["betas"][0]
        assert 0.2 <= beta <= 0.9
