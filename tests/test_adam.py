"""Adam on one number a task: torch's own, absent tasks, and each task's own count of steps."""

from __future__ import annotations

import pytest
import torch

from mtlsk.aggregators import LinearScalarization
from mtlsk.aggregators.adam import adam_step

TARGET = torch.tensor([1.0, -2.0, 30.0], dtype=torch.float64)


def slope(x, tasks=(0, 1, 2)):
    return torch.tanh(x - TARGET[list(tasks)])


def moved(n_steps, active=None, **options):
    """Return an aggregator with the memory ``x_`` after some steps towards the target."""
    live = LinearScalarization()
    live.active_ = active
    tasks = (0, 1, 2) if active is None else active
    for _ in range(n_steps):
        adam_step(live, "x_", slope(live.recall("x_", len(tasks)), tasks), 0.1, **options)
    return live


def test_it_is_torchs_adam():
    for decay in (0.0, 0.3):
        x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([x], lr=0.1, weight_decay=decay)
        for _ in range(50):
            x.grad = slope(x.detach())
            adam.step()
        live = moved(50, decay=decay)
        torch.testing.assert_close(live.x_, x.detach(), rtol=1e-9, atol=1e-12)
        assert live.n_adam_steps_.tolist() == [50] * 3


def test_absent_tasks_are_untouched_and_late_ones_start_afresh():
    live = moved(20, active=(0, 1))
    before = live.state_dict()
    live.active_ = (2,)
    for _ in range(5):
        adam_step(live, "x_", slope(live.recall("x_", 1), (2,)), 0.1)
    for name, value in before.items():
        assert torch.equal(getattr(live, name)[:2], value), name
    # as if it had been there alone from the first step on
    assert torch.equal(live.x_[2:], moved(5).x_[2:])
    live.active_ = None
    adam_step(live, "x_", slope(live.x_), 0.1)
    assert live.n_adam_steps_.tolist() == [21, 21, 6]
    assert float(live.x_[2]) == pytest.approx(float(moved(6).x_[2]), rel=1e-12)


def test_tasks_that_do_not_move_keep_everything():
    live = moved(3)
    before = live.state_dict()
    moves = torch.tensor([True, False, True])
    adam_step(live, "x_", slope(live.x_), 0.1, moves=moves)
    for name, value in before.items():
        assert (getattr(live, name) == value).tolist() == [False, True, False], name
