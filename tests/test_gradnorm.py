"""GradNorm: its step by torch, the fixed point, tasks without gradient, absent tasks."""

from __future__ import annotations

import pickle

import pytest
import torch

from mtlsk.aggregators import GradNorm


def told(*values):
    return torch.tensor(values, dtype=torch.float64)


def gramian(*norms):
    """Return a Gramian of correlated gradients of these norms."""
    n = told(*norms)
    return n[:, None] * (0.3 + 0.7 * torch.eye(len(n), dtype=torch.float64)) * n


def test_its_step_is_the_slope_of_the_papers_loss():
    generator = torch.Generator().manual_seed(0)

    def rand():
        return 0.5 + torch.rand(4, generator=generator, dtype=torch.float64)

    alpha, lr = 1.5, 0.05
    live, w, first = GradNorm(alpha=alpha, lr=lr), told(1.0, 1.0, 1.0, 1.0), None
    for _ in range(30):
        norms, losses = rand(), rand()
        first = losses if first is None else first
        got = live.task_weights(gramian(*norms), losses)
        torch.testing.assert_close(got, w / 4)  # the weights before they move
        w.requires_grad_(True)
        reached = w * norms
        r = losses / first
        target = (reached.mean() * (r / r.mean()) ** alpha).detach()
        (slope,) = torch.autograd.grad((reached - target).abs().sum(), w)
        slope[(reached - target).abs() < 1e-9] = 0  # at the first call of equal norms: a kink
        w = w.detach() - lr * slope / norms.mean()
        w = w * 4 / w.sum()
        torch.testing.assert_close(live.weights_, w)


def test_with_alpha_zero_the_norms_become_equal():
    live, norms = GradNorm(alpha=0.0, lr=0.002), told(5.0, 1.0, 0.5)
    for _ in range(3000):
        w = live.task_weights(gramian(*norms), told(1.0, 1.0, 1.0))
    torch.testing.assert_close(w, 1 / norms / (1 / norms).sum(), rtol=0.03, atol=0)


def test_a_task_that_learns_slowly_gains_weight():
    live = GradNorm(lr=0.01)
    losses = told(1.0, 1.0, 1.0)
    for _ in range(40):
        w = live.task_weights(gramian(1.0, 1.0, 1.0), losses)
        losses = losses * told(0.9, 0.95, 1.0)
    assert float(w[0]) < float(w[1]) < float(w[2])
    assert float(w.sum()) == pytest.approx(1, rel=1e-12)
    assert float(live.weights_.sum()) == pytest.approx(3, rel=1e-12)


def test_its_fixed_point_is_the_target():
    live, norms, losses = GradNorm(alpha=1.0, lr=0.001), told(2.0, 1.0, 0.7), told(4.0, 1.0, 2.0)
    live.task_weights(gramian(*norms), told(4.0, 4.0, 4.0))
    for _ in range(4000):
        w = live.task_weights(gramian(*norms), losses)
    r = losses / losses.mean()
    target = r / norms
    torch.testing.assert_close(w, target / target.sum(), rtol=0.03, atol=0)


def test_units_common_to_all_change_nothing():
    one, other = GradNorm(), GradNorm()
    for i in range(10):
        losses = told(1.0, 0.5 + i, 2.0)
        w = one.task_weights(gramian(1.0, 2.0, 3.0), losses)
        v = other.task_weights(1e-12 * gramian(1.0, 2.0, 3.0), 1e-6 * losses)
        torch.testing.assert_close(v, w)


def test_norms_that_are_equal_up_to_rounding_move_nothing():
    live = GradNorm(alpha=0.0)
    for _ in range(3):
        live.task_weights(gramian(0.3, 0.1 + 0.2, 0.3 - 1e-16), told(1.0, 2.0, 3.0))
    torch.testing.assert_close(live.weights_, told(1.0, 1.0, 1.0), rtol=1e-12, atol=0)


def test_a_task_without_gradient_takes_no_part():
    live = GradNorm(lr=0.01)
    for i in range(200):
        w = live.task_weights(gramian(3.0, 0.0, 1.0), told(1.0, 1.0, 1.0 + i % 2))
    assert float(live.weights_[1]) == 1
    assert float(w[1]) == pytest.approx(1 / 3)
    other = GradNorm(lr=0.01)
    for i in range(200):
        v = other.task_weights(gramian(3.0, 1.0), told(1.0, 1.0 + i % 2))
    torch.testing.assert_close(w[[0, 2]] * 3 / 2, v)
    assert GradNorm().task_weights(gramian(0.0, 0.0), told(1.0, 1.0)).tolist() == [0.5, 0.5]


def test_hostile_norms_and_losses_keep_the_weights_positive():
    live = GradNorm(lr=0.5)
    for i in range(100):
        losses = told([0.0, 1.0, 1e200][i % 3], -1.0 if i % 5 else 0.0, 1e-200, 1.0)
        w = live.task_weights(gramian(1e6, 1.0, 1e-6, 1e3), losses)
        assert bool((w > 0).all())
        assert float(w.sum()) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(("losses", "alike"), [((0.0, 0.0), (1.0, 1.0)), ((-1.0, 1.0), (0.0, 1.0))])
def test_losses_that_reach_zero_or_pass_it_still_move_the_weights(losses, alike):
    live, other = GradNorm(), GradNorm()
    for a, b in (((1.0, 1.0), (1.0, 1.0)), (losses, alike)):
        live.task_weights(gramian(1.0, 2.0), told(*a))
        before = other.state_dict().get("weights_", told(1.0, 1.0))
        other.task_weights(gramian(1.0, 2.0), told(*b))
        assert not torch.equal(other.weights_, before)
    assert torch.equal(live.weights_, other.weights_)


def test_a_first_loss_that_is_not_positive_counts_as_no_change():
    live, other = GradNorm(), GradNorm()
    live.task_weights(gramian(1.0, 2.0), told(0.0, 1.0))
    other.task_weights(gramian(1.0, 2.0), told(5.0, 1.0))
    live.task_weights(gramian(1.0, 2.0), told(7.0, 0.5))
    other.task_weights(gramian(1.0, 2.0), told(5.0, 0.5))
    assert torch.equal(live.weights_, other.weights_)


def test_absent_tasks_keep_theirs_and_a_saved_run_goes_on():
    live = GradNorm()
    for _ in range(5):
        live.task_weights(gramian(3.0, 2.0, 1.0), told(1.0, 1.0, 1.0))
    kept = live.state_dict()
    live.active_ = (0, 2)
    w = live.task_weights(gramian(3.0, 1.0), told(0.5, 1.0))
    before = kept["weights_"][[0, 2]]
    torch.testing.assert_close(w, before / before.sum())
    assert (live.weights_ == kept["weights_"]).tolist() == [False, True, False]
    assert float(live.weights_.sum()) == pytest.approx(3)  # the two share what they had
    assert torch.equal(live.first_losses_, kept["first_losses_"])
    other = GradNorm().load_state_dict(pickle.loads(pickle.dumps(live.state_dict())))
    live.active_ = None
    for aggregator in (live, other):
        for _ in range(3):
            w = aggregator.task_weights(gramian(1.0, 2.0, 3.0), told(0.1, 0.5, 1.0))
    assert torch.equal(live.weights_, other.weights_)


def test_a_late_task_has_its_own_first_loss():
    live = GradNorm()
    live.active_ = (0,)
    live.task_weights(gramian(1.0), told(4.0))
    live.active_ = None
    live.task_weights(gramian(1.0, 1.0), told(2.0, 9.0))
    assert live.first_losses_.tolist() == [4.0, 9.0]
