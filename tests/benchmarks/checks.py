"""Every route is checked once before it is timed: right gradients, right weights, right dual."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlsk.engines import Budget, Features, Online
from tests.benchmarks.problem import Batch, Problem
from tests.benchmarks.routes import Ours, Plain, Route

LARGEST = 1 << 24
"""Numbers of J in float64 up to which weights are checked."""


def check(route: Route, gramian: Tensor | None) -> None:
    """Raise AssertionError unless the route does what it says, in its first step and its third.

    Parameters
    ----------
    route : Route at its initial parameters
    gramian : tensor of shape (K, K), or None
        That of the first batch at the initial parameters in float64; None skips the weights.
    """
    for number in range(3):
        batch = route.problem.batch(number)
        weights = route.fill(batch)
        if number == 0 and gramian is not None and isinstance(route, Ours):
            there = torch.tensor(batch.present or [True] * len(weights))
            check_weights(route, weights.double()[there], gramian[there][:, there])
        if number != 1:
            check_gradients(route, batch, weights)
        route.optimizer.step()


def check_gradients(route: Route, batch: Batch, weights: Tensor) -> None:
    """Compare ``.grad`` with one backward pass of w'L, of the mean loss for the heads."""
    twin = Plain(route.problem)  # a forward pass of the route's own net could disturb its hooks
    twin.module.load_state_dict(route.module.state_dict())
    losses = twin.losses(batch)
    shared = torch.autograd.grad(losses @ weights.to(losses), twin.shared, retain_graph=True)
    present = batch.present or [True] * len(losses)
    own = torch.autograd.grad(losses[torch.tensor(present)].mean(), twin.own)
    for what, parameters, wanted in (("shared", route.shared, shared), ("own", route.own, own)):
        error = size = 0.0
        for p, g in zip(parameters, wanted, strict=True):
            assert p.grad is not None, f"{type(route).__name__}: no {what} gradient"
            error += float((p.grad - g).square().sum())
            size += float(g.square().sum())
        assert error <= 1e-6 * size, (
            f"{type(route).__name__}: {what} gradient off by {error / size}"
        )


def check_weights(route: Ours, weights: Tensor, gramian: Tensor) -> None:
    """Compare exact weights with those of the float64 Gramian, and a dual step with its own."""
    aggregator, engine = route.descent.aggregator, route.descent.engine
    if aggregator.needs != "gramian" or isinstance(engine, Budget | Features):
        return  # estimates
    if isinstance(engine, Online):
        progress = gramian @ weights
        wanted = nearest(1 / len(weights) - engine.dual_lr * progress / progress.abs().max())
        error = float((torch.as_tensor(aggregator.dual_) - wanted).abs().max()) / engine.dual_lr
        assert error < 5e-2, f"online: dual weights off by {error} of their step"
        return
    wanted = type(aggregator)().task_weights(gramian, torch.ones_like(weights))
    off = weights - wanted
    error = float((off @ gramian @ off) / (wanted @ gramian @ wanted))
    assert error < 1e-4, f"{type(aggregator).__name__}: squared error {error} of the update"


def nearest(v: Tensor) -> Tensor:
    """Return the point of the simplex nearest to ``v`` (K,), by bisection of the shift."""
    low, high = v.max() - 1, v.max()
    for _ in range(100):
        shift = (low + high) / 2
        low, high = (shift, high) if (v - shift).clamp_min(0).sum() > 1 else (low, shift)
    return (v - high).clamp_min(0)


def reference_gramian(problem: Problem) -> Tensor | None:
    """Return G of the first batch at the initial parameters in float64, None where it is large."""
    double = Problem(problem.setting, problem.kind, torch.float64)
    module = problem.module().double()
    shared = list(module.shared_parameters())  # type: ignore[operator]
    if problem.setting.tasks * sum(p.numel() for p in shared) > LARGEST:
        return None
    batch = double.batch(0)
    losses = double.losses(module(batch.x), batch)
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(
            loss, shared, retain_graph=True, materialize_grads=True, allow_unused=True
        )
        rows.append(torch.cat([g.reshape(-1) for g in gradients]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T
