"""APT: the map, the moment it acts, and the host optimizer it becomes at equal bounds."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from mtlsk.controllers import APT
from mtlsk.controllers.apt import cosine, momentum
from mtlsk.descent import Descent
from mtlsk.optimizers import SGD, Adam, AdamW
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


def test_the_contract():
    check_controller(APT())
    check_controller(APT(beta_min=0.0, beta_max=0.0))
    check_controller(APT(), lambda p: SGD(p, lr=0.01, momentum=0.9, dampening=0.9))
    check_controller(APT(), lambda p: Adam(p, lr=0.01))


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
}


@pytest.mark.parametrize("host", list(HOSTS))
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_equal_bounds_it_is_the_host_bit_for_bit(host, beta, dtype):
    module, batches = net(dtype)
    twin = copy.deepcopy(module)
    driven, plain = HOSTS[host]
    steps = [
        Descent(module, driven(module.parameters(), beta), "MGDA", APT(beta, beta), n_tasks=3),
        Descent(twin, plain(twin.parameters(), beta), "MGDA", n_tasks=3),
    ]
    for x, y in batches:
        for descent, m in zip(steps, (module, twin), strict=True):
            descent.backward(((m(x) - y) ** 2).mean(0))
            descent.optimizer.step()
        for p, q in zip(module.parameters(), twin.parameters(), strict=True):
            assert torch.equal(p, q)


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
        (lambda p: torch.optim.Adam(p), ["torch.optim.adam.Adam", "'Adam' or 'AdamW'"]),
        (lambda p: torch.optim.AdamW(p), ["bias correction", "'Adam' or 'AdamW'"]),
        (lambda p: torch.optim.NAdam(p), ["NAdam"]),
        (lambda p: torch.optim.RMSprop(p), ["RMSprop", "'SGD'"]),
        (lambda p: torch.optim.Adagrad(p), ["Adagrad has none", "'SGD'"]),
    ],
    ids=["nesterov", "torch-Adam", "torch-AdamW", "NAdam", "RMSprop", "Adagrad"],
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
