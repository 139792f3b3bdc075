"""NAdam and RAdam driven by a varying first momentum, against their definitions in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from test_optimizers import BETAS, gradients, parameters, take
from torch import nn

from mtlsk.optimizers import NAdam, RAdam


class NAdamReference:
    """The formula of the docstring, number by number."""

    def __init__(self, p, lr, decay=0.0, psi=4e-3, beta2=0.999, eps=1e-8):
        self.p = p.detach().double().clone()
        self.m, self.v = torch.zeros_like(self.p), torch.zeros_like(self.p)
        self.t, self.product = 0, 1.0
        self.lr, self.decay, self.psi, self.beta2, self.eps = lr, decay, psi, beta2, eps

    def step(self, g, beta):
        self.t += 1
        mu, following = (beta * (1 - 0.5 * 0.96 ** (t * self.psi)) for t in (self.t, self.t + 1))
        self.product *= mu
        self.m = beta * self.m + (1 - beta) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        ahead = following / (1 - following * self.product) * self.m
        now = (1 - mu) / (1 - self.product) * g
        self.p = self.p * (1 - self.lr * self.decay)
        root = (self.v / (1 - self.beta2**self.t)).sqrt() + self.eps
        self.p = self.p - self.lr * (now + ahead) / root


class RAdamReference(NAdamReference):
    """Algorithm 2 with m corrected by 1 - prod beta."""

    def step(self, g, beta):
        self.t += 1
        self.product *= beta
        self.m = beta * self.m + (1 - beta) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        limit = 2 / (1 - self.beta2) - 1
        power = self.beta2**self.t
        rho = limit - 2 * self.t * power / (1 - power)
        way = self.m / (1 - self.product)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
            way = r * way * math.sqrt(1 - power) / (self.v.sqrt() + self.eps)
        self.p = self.p * (1 - self.lr * self.decay) - self.lr * way


@pytest.mark.parametrize(("ours", "host"), [(NAdam, torch.optim.NAdam), (RAdam, torch.optim.RAdam)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"foreach": True},
    ],
    ids=["plain", "L2", "decoupled", "foreach"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_a_constant_momentum_it_is_torchs_bit_for_bit(ours, host, options, dtype):
    mine, theirs = parameters(dtype), parameters(dtype)
    a = ours(mine, lr=0.01, betas=(0.97, 0.99), **options)
    b = host(theirs, lr=0.01, betas=(0.97, 0.99), **options)
    for grads in gradients(40, dtype=dtype):
        take(a, mine, grads)
        take(b, theirs, grads)
        assert all(torch.equal(p, q) for p, q in zip(mine, theirs, strict=True))


@pytest.fixture
def _float64_scalars():
    """Let torch keep its scalars (NAdam's product of momenta) in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("_float64_scalars")
@pytest.mark.parametrize("betas", [BETAS, [0.0, *BETAS], [0.9] * 6 + BETAS], ids=len)
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("cls", [NAdam, RAdam])
def test_a_varying_momentum_follows_the_definition(cls, decay, betas):
    params = parameters(torch.float64)
    reference = {NAdam: NAdamReference, RAdam: RAdamReference}[cls]
    expected = [reference(p, 0.01, decay) for p in params]
    optimizer = cls(params, lr=0.01, weight_decay=decay, decoupled_weight_decay=True)
    for beta1, grads in zip(betas, gradients(len(betas), dtype=torch.float64), strict=True):
        take(optimizer, params, grads, beta1)
        for p, r, g in zip(params, expected, grads, strict=True):
            r.step(g, beta1)
            torch.testing.assert_close(p.detach(), r.p, rtol=1e-11, atol=1e-12)


def step_lengths(cls, betas, gradient, **options):
    """Return the lengths of steps on a constant gradient, in units of lr."""
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = cls([p], lr=0.01, **options)
    lengths = []
    for beta1 in betas:
        before = p.detach().clone()
        take(optimizer, [p], [torch.tensor([gradient], dtype=torch.float64)], beta1)
        lengths.append(float((p.detach() - before).abs()) / 0.01)
    return torch.tensor(lengths, dtype=torch.float64)


JUMPS = [[0.5] * n + [0.99] * 5 + [0.5, 0.99] * 5 for n in (1, 2, 5, 30)]
JUMPS += [[0.0] * 3 + [0.999] * 20, [0.99] * 5 + [0.1] * 5, BETAS]


@pytest.mark.parametrize("betas", JUMPS)
@pytest.mark.parametrize("gradient", [1.0, -0.3, 1e-3, 40.0])
def test_on_a_constant_gradient_radam_steps_as_its_host_does_at_any_constant_momentum(
    betas, gradient
):
    host = step_lengths(torch.optim.RAdam, [0.9] * len(betas), gradient)
    mine = step_lengths(RAdam, betas, gradient)
    torch.testing.assert_close(mine, host, rtol=1e-6, atol=1e-12)
    # five steps without the second moment are lr |g| long, the others shorter than lr
    assert mine.max() <= max(1.0, abs(gradient)) * (1 + 1e-6)
    assert step_lengths(torch.optim.RAdam, [0.5] * 2 + [0.99] * 2, gradient).max() > 20 * gradient


@pytest.mark.parametrize("betas", JUMPS)
def test_on_a_constant_gradient_no_step_of_nadam_is_longer_than_the_first_of_its_host(betas):
    c1, c2 = (1 - 0.5 * 0.96 ** (t * 4e-3) for t in (1, 2))
    constants = torch.linspace(0, 0.999, 200, dtype=torch.float64)
    first = 1 + constants * (1 - constants) * c2 / (1 - constants**2 * c1 * c2)
    assert 1.13 < float(first.max()) < 1.135
    for beta in (0.0, 0.3, 0.5, 0.7, 0.9, 0.99):  # torch's own, which exceeds lr itself
        longest = step_lengths(torch.optim.NAdam, [beta] * 60, 1.0).max()
        assert 1 - 1e-6 < longest <= float(first.max()) * (1 + 1e-6)
    assert step_lengths(torch.optim.NAdam, [0.9], 1.0)[0] == pytest.approx(1.0564, abs=1e-4)
    assert step_lengths(NAdam, betas, 1.0).max() <= float(first.max()) * (1 + 1e-6)


@pytest.mark.parametrize("cls", [NAdam, RAdam])
def test_a_state_saved_mid_way_goes_on_bit_for_bit(cls):
    params, other = parameters(), parameters()
    first, second = cls(params, lr=0.01), cls(other, lr=0.5)
    steps = list(zip(BETAS, gradients(12), strict=True))
    for beta1, grads in steps[:5]:
        take(first, params, grads, beta1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        for p, q in zip(other, params, strict=True):
            p.copy_(q)
    for beta1, grads in steps[5:]:
        take(first, params, grads, beta1)
        take(second, other, grads, beta1)
        assert all(torch.equal(p, q) for p, q in zip(params, other, strict=True))
