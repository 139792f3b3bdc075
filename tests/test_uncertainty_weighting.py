"""UncertaintyWeighting: s -> log L, the joint objective by torch, and losses without a variance."""

from __future__ import annotations

import pickle

import pytest
import torch

from mtlsk.aggregators import UncertaintyWeighting


def told(*losses):
    return torch.tensor(losses, dtype=torch.float64)


def after(live, losses, n):
    for _ in range(n):
        w = live.task_weights(None, losses)
    return w


def test_it_begins_with_the_mean_and_moves_away_from_large_losses():
    live = UncertaintyWeighting(lr=0.1)
    assert live.task_weights(None, told(4.0, 0.25, 1.0)).tolist() == [1 / 3] * 3
    # Adam's first step is lr against the sign of (1 - L) / 2
    torch.testing.assert_close(live.log_variance_, told(0.1, -0.1, 0.0), rtol=0, atol=1e-8)
    w = live.task_weights(None, told(4.0, 0.25, 1.0))
    torch.testing.assert_close(w, told(-0.1, 0.1, 0.0).exp() / 3, rtol=1e-7, atol=0)


def test_its_steps_are_adam_on_the_papers_objective():
    generator = torch.Generator().manual_seed(0)
    live = UncertaintyWeighting(lr=0.05)
    s = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([s], lr=0.05)
    for _ in range(60):
        losses = 3 * torch.rand(3, generator=generator, dtype=torch.float64) + told(0.1, 1, 3)
        w = live.task_weights(None, losses)
        torch.testing.assert_close(w, (-s.detach()).exp() / 3, rtol=1e-6, atol=1e-9)
        adam.zero_grad()
        (torch.exp(-s) * losses / 2 + s / 2).sum().backward()
        adam.step()
        torch.testing.assert_close(live.log_variance_, s.detach(), rtol=1e-6, atol=1e-9)
    assert float(s.detach().abs().max()) > 0.5


def test_at_constant_losses_the_variances_become_the_losses():
    losses = told(1e-3, 0.5, 20.0)
    w = after(UncertaintyWeighting(lr=0.01), losses, 5000)
    torch.testing.assert_close(w, 1 / (3 * losses), rtol=0.01, atol=0)


def test_a_huge_loss_takes_no_longer_than_its_logarithm():
    # without the bound of the slope Adam's second moment stalls the way up for thousands of calls
    live = UncertaintyWeighting(lr=0.01)
    after(live, told(1e6, 1.0), 3000)
    torch.testing.assert_close(live.log_variance_[0], told(1e6).log()[0], rtol=0.02, atol=0)
    after(live, told(1e300, 1e-300), 10_000)
    assert live.log_variance_.tolist() == [30.0, -30.0]
    w = after(live, told(1.0, 1.0), 12_000)  # and they come back
    torch.testing.assert_close(w, told(0.5, 0.5), rtol=0.01, atol=0)


def test_losses_of_zero_or_below_leave_their_variance():
    live = UncertaintyWeighting(lr=0.1)
    after(live, told(2.0, 2.0, 2.0), 3)
    s = live.log_variance_.clone()
    w = after(live, told(0.0, -5.0, 2.0), 1000)
    assert live.log_variance_[:2].tolist() == s[:2].tolist()
    assert w[:2].tolist() == ((-s[:2]).exp() / 3).tolist()
    assert float(live.log_variance_[2]) != float(s[2])


def test_absent_tasks_keep_theirs_and_a_saved_run_goes_on():
    live = UncertaintyWeighting()
    after(live, told(2.0, 0.1, 5.0), 5)
    kept = live.state_dict()
    live.active_ = (0, 2)
    w = after(live, told(2.0, 5.0), 1)
    torch.testing.assert_close(w, (-kept["log_variance_"][[0, 2]]).exp() / 2)
    for name, value in kept.items():
        assert (getattr(live, name) == value).tolist() == [False, True, False], name
    other = UncertaintyWeighting().load_state_dict(pickle.loads(pickle.dumps(live.state_dict())))
    live.active_ = None
    losses = told(1.0, 2.0, 3.0)
    assert torch.equal(after(live, losses, 5), after(other, losses, 5))


def test_another_unit_is_another_direction():
    assert not UncertaintyWeighting.unit_free
    w, other = (after(UncertaintyWeighting(), unit * told(0.5, 2.0), 20) for unit in (1.0, 10.0))
    assert not torch.allclose(w / w.sum(), other / other.sum(), rtol=1e-2)


def test_a_step_of_zero_is_refused():
    with pytest.raises(ValueError, match="lr=0 is not allowed"):
        UncertaintyWeighting(lr=0).check_domains()
