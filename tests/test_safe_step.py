"""SafeStep: the bounds as formulas, the guarantee, and the warmup nobody scheduled."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mtlsk import Aggregator, Descent, MultiTaskRegressor
from mtlsk.certificates import gram_step, h, self_bounding_step
from mtlsk.controllers import SafeStep


def quadratics(seed, k=3, m=6):
    """Return (losses of theta, their Jacobian, beta): L_k = (theta - a_k)'A_k(theta - a_k)/2."""
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(k, m, m, generator=generator, dtype=torch.float64)
    curvature = roots @ roots.mT / m
    centre = torch.randn(k, m, generator=generator, dtype=torch.float64)

    def jacobian(theta):
        return ((theta - centre)[:, None] @ curvature)[:, 0]

    def losses(theta):
        return 0.5 * (jacobian(theta) * (theta - centre)).sum(1)

    return losses, jacobian, float(torch.linalg.eigvalsh(curvature).max())


@pytest.mark.parametrize("seed", range(60))
def test_the_self_bounding_step_lets_h_fall(seed):
    losses, jacobian, beta = quadratics(seed)
    theta = 10 ** (seed % 4 - 2) * torch.randn(6, dtype=torch.float64)
    for _ in range(5):
        L, j = losses(theta), jacobian(theta)
        grad = 2 / 3 * j.T @ L
        eta = self_bounding_step(L, beta)
        assert eta == pytest.approx(1 / (9 * beta * math.sqrt(h(L))))
        after = h(losses(theta - eta * grad))
        assert after <= h(L) - eta / 2 * float(grad @ grad) * (1 - 1e-9)
        w = torch.rand(3, dtype=torch.float64)  # some other direction
        d = j.T @ w
        other = self_bounding_step(L, beta, j @ j.T, w)
        assert other == pytest.approx(eta * float(grad @ d) / float(d @ d))
        if other > 0:
            assert h(losses(theta - other * d)) < h(L)
        theta = theta - eta * grad


def test_a_longer_step_can_let_h_rise():
    """The bound says something: 40 times of it fails on most of the same sets."""
    worse = 0
    for seed in range(60):
        losses, jacobian, beta = quadratics(seed)
        theta = torch.randn(6, dtype=torch.float64)
        L = losses(theta)
        step = 40 * self_bounding_step(L, beta) * 2 / 3 * jacobian(theta).T @ L
        worse += h(losses(theta - step)) > h(L)
    assert worse > 30


@pytest.mark.parametrize("seed", range(20))
def test_the_gram_step_is_the_minimum_along_the_line_of_linear_losses(seed):
    generator = torch.Generator().manual_seed(seed)
    j = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    L, w = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    g = j @ j.T
    for weights in (None, w):
        eta = gram_step(L, g, weights)
        used = 2 * L / 3 if weights is None else weights
        at = [float(((L - (eta + e) * g @ used) ** 2).sum()) for e in (-1e-3, 0.0, 1e-3)]
        assert at[1] < min(at[0], at[2])
    eigenvalues = torch.linalg.eigvalsh(g)
    inside = 1.5 / float(eigenvalues[-1]), 1.5 / float(eigenvalues[0])
    assert inside[0] <= gram_step(L, g) <= inside[1]
    assert gram_step(L, torch.zeros_like(g)) == math.inf


def test_edges_of_the_self_bounding_step():
    zero, g, w = torch.zeros(2).double(), torch.eye(2).double(), torch.ones(2).double()
    assert self_bounding_step(zero, 1.0) == math.inf
    assert self_bounding_step(zero, 1.0, g, w) == math.inf
    assert self_bounding_step(w, 1.0, g, zero) == math.inf
    assert self_bounding_step(w, 1.0, g, -w) < 0
    with pytest.raises(ValueError, match=r"never negative; that of task 1 is -0.5"):
        self_bounding_step(torch.tensor([1.0, -0.5]), 1.0)


class SquaredLosses(Aggregator):
    """d = grad h."""

    needs = "losses"

    def task_weights(self, gramian, losses):
        return 2 * losses / len(losses)


class Point(torch.nn.Module):
    """A parameter, and the losses of some quadratics at it."""

    def __init__(self, losses, start):
        super().__init__()
        self.theta = torch.nn.Parameter(start)
        self.losses = losses


def descend(controller, steps=200, lr=1e3, scale=30.0, seed=0):
    """Return h and the learning rate of each step."""
    losses, _, beta = quadratics(seed)
    start = torch.full((6,), scale, dtype=torch.float64)
    point = Point(losses, start)
    optimizer = torch.optim.SGD(point.parameters(), lr=lr)
    if controller.beta == "known":
        controller.beta = beta
    descent = Descent(point, optimizer, SquaredLosses(), controller, n_tasks=3)
    hs, lrs = [], []
    for _ in range(steps):
        hs.append(h(descent.backward(losses(point.theta)).losses))
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return hs, lrs


def test_warmup_emerges_from_the_bound():
    hs, lrs = descend(SafeStep(beta="known"))
    assert all(b <= a for a, b in itertools.pairwise(hs))
    assert all(b >= a for a, b in itertools.pairwise(lrs))
    assert lrs[-1] > 20 * lrs[0]
    assert hs[-1] < 1e-3 * hs[0]


def test_the_learning_rate_is_an_upper_limit_and_share_a_factor():
    _, lrs = descend(SafeStep(beta="known"), lr=1e-9)
    assert set(lrs) == {1e-9}
    _, whole = descend(SafeStep(beta="known"), steps=1)
    _, part = descend(SafeStep(beta="known", share=0.25), steps=1)
    assert part[0] == pytest.approx(whole[0] / 4)


def test_estimated_smoothness_is_a_bound_from_below():
    controller = SafeStep()
    hs, _ = descend(controller)
    _, _, beta = quadratics(0)
    assert 0 < controller.beta_ <= beta * (1 + 1e-9)
    assert hs[-1] < 1e-3 * hs[0]


def test_a_loss_of_zero_says_nothing_about_the_smoothness():
    controller = SafeStep()
    point = Point(None, torch.ones(6, dtype=torch.float64))
    optimizer = torch.optim.SGD(point.parameters(), lr=1.0)
    descent = Descent(point, optimizer, SquaredLosses(), controller, n_tasks=2)
    square = (point.theta**2).sum()
    descent.backward(torch.stack([square, 0 * square]))
    assert controller.beta_ == pytest.approx(2.0)
    assert 0 < optimizer.param_groups[0]["lr"] < 1


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("AdamW", {}),
        ("SGD", {"optimizer__momentum": 0.9}),
        ("SGD", {"optimizer__weight_decay": 0.1}),
        ("RMSprop", {}),
    ],
)
def test_other_steps_than_the_plain_one_are_refused(optimizer, options):
    net = MultiTaskRegressor((4,), controller="SafeStep", optimizer=optimizer, **options)
    with pytest.raises(ValueError, match="use optimizer='SGD' without momentum and weight decay"):
        net.fit(torch.ones(8, 2).numpy(), torch.ones(8, 2).numpy())


def test_uphill_it_does_not_step():
    class Up(SquaredLosses):
        def task_weights(self, gramian, losses):
            return -2 * losses / len(losses)

    losses, _, _ = quadratics(0)
    point = Point(losses, torch.ones(6, dtype=torch.float64))
    optimizer = torch.optim.SGD(point.parameters(), lr=1.0)
    descent = Descent(point, optimizer, Up(), SafeStep(beta=1.0), n_tasks=3)
    descent.backward(losses(point.theta))
    assert descent.changes["lr"] == (0.0, "self-bounding bound on an update that points uphill")


def test_a_rate_set_from_outside_is_the_new_limit():
    losses, _, _ = quadratics(0)
    point = Point(losses, torch.ones(6, dtype=torch.float64))
    optimizer = torch.optim.SGD(point.parameters(), lr=1e3)
    descent = Descent(point, optimizer, SquaredLosses(), SafeStep(beta=1.0), n_tasks=3)
    seen = []
    for lr in (None, None, 1e-9, None, 1e3):
        optimizer.param_groups[0]["lr"] = lr or optimizer.param_groups[0]["lr"]
        descent.backward(losses(point.theta))
        seen.append(optimizer.param_groups[0]["lr"])
    bound = seen[0]
    assert bound < 1e3
    assert seen == [bound, bound, 1e-9, 1e-9, bound]


def test_a_negative_loss_is_named_also_where_tasks_are_absent():
    point = Point(None, torch.ones(3))
    optimizer = torch.optim.SGD(point.parameters(), lr=1.0)
    names = ["a", "b", "c"]
    descent = Descent(point, optimizer, SquaredLosses(), SafeStep(), n_tasks=3, task_names=names)
    with pytest.raises(ValueError, match="that of task 'c' is -1; take bound='gram'"):
        descent.backward(point.theta * torch.tensor([1.0, 1.0, -1.0]), [True, False, True])


@pytest.mark.parametrize("gramian", ["features", "budget"])
def test_an_estimated_gramian_is_no_certificate(gramian):
    net = MultiTaskRegressor((4,), "MGDA", "SafeStep", "SGD", gramian=gramian)
    with pytest.raises(ValueError, match=r"SafeStep.* needs the exact Gramian; it can use: auto"):
        net.fit(torch.ones(8, 2).numpy(), torch.ones(8, 2).numpy())
