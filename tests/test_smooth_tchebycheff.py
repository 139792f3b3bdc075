"""SmoothTchebycheff: the gradient by autograd, both limits, and its parameters."""

from __future__ import annotations

import pytest
import torch

from mtlsk.aggregators import LinearScalarization, SmoothTchebycheff, Tchebycheff


def told(*losses):
    return torch.tensor(losses, dtype=torch.float64)


def weights(losses, **params):
    return SmoothTchebycheff(**params).check_domains().task_weights(None, losses)


LOSSES = told(0.3, 1.2, 0.9)
PREFERENCE, REFERENCE = [0.5, 0.2, 0.3], [0.1, 0.4, -0.2]


@pytest.mark.parametrize("mu", [0.05, 1.0, 30.0])
def test_it_is_the_gradient_of_the_smooth_maximum(mu):
    losses = LOSSES.clone().requires_grad_(True)
    scale = 3 * told(*PREFERENCE)
    value = mu * torch.logsumexp(scale * (losses - told(*REFERENCE)) / mu, 0)
    (gradient,) = torch.autograd.grad(value, losses)
    w = weights(LOSSES, mu=mu, preference=PREFERENCE, reference=REFERENCE)
    torch.testing.assert_close(w, gradient, rtol=1e-9, atol=1e-15)


def test_by_hand():
    # exp(0), exp(log 2), exp(log 5)
    w = weights(told(1.0, 2.0, 5.0).log() * 0.5, mu=0.5)
    torch.testing.assert_close(w, told(1 / 8, 2 / 8, 5 / 8))


@pytest.mark.parametrize("params", [{}, {"preference": PREFERENCE, "reference": REFERENCE}])
def test_its_two_limits(params):
    sharp = Tchebycheff(**params).task_weights(None, LOSSES)
    torch.testing.assert_close(weights(LOSSES, mu=1e-4, **params), sharp)
    torch.testing.assert_close(weights(LOSSES, mu=1e-300, **params), sharp)
    fixed = LinearScalarization(params.get("preference"))
    flat = fixed.task_weights(None, LOSSES)
    torch.testing.assert_close(weights(LOSSES, mu=1e7, **params), flat, rtol=1e-6, atol=0)
    between = weights(LOSSES, mu=0.5, **params)
    assert float((between - sharp).abs().max()) > 0.05
    assert float((between - flat).abs().max()) > 0.05


def test_one_number_as_reference_changes_nothing_at_equal_preference():
    torch.testing.assert_close(weights(LOSSES, reference=7.0), weights(LOSSES))
    other = weights(LOSSES, preference=PREFERENCE, reference=7.0)
    assert not torch.allclose(other, weights(LOSSES, preference=PREFERENCE), rtol=0.1)


def test_a_task_without_preference_never_counts():
    w = weights(told(9.0, 1.0, 2.0), preference=[0.0, 1.0, 1.0], reference=5.0)
    assert w[0] == 0
    # lambda is 0, 1.5, 1.5; at equal lambda the reference cancels
    expected = 1.5 * torch.softmax(1.5 * told(1.0, 2.0), 0)
    torch.testing.assert_close(w[1:], expected)
    live = SmoothTchebycheff(preference=[0.0, 1.0])
    live.active_ = (0,)
    assert live.task_weights(None, told(1.0)).tolist() == [0.0]


def test_lists_follow_the_tasks_that_are_there():
    live = SmoothTchebycheff(preference=[1.0, 1.0, 4.0], reference=[0.0, 0.0, 1.0])
    live.active_ = (0, 2)
    w = live.task_weights(None, told(1.0, 1.5))
    scale = told(0.5, 2.0)
    torch.testing.assert_close(w, scale * torch.softmax(scale * told(1.0, 0.5), 0))
    live.active_ = None
    with pytest.raises(ValueError, match="SmoothTchebycheff: preference has 3 entries for 2 tasks"):
        live.task_weights(None, told(1.0, 1.0))


def test_losses_of_any_size_give_finite_weights():
    for mu in (1e-300, 1.0):
        for losses in (told(1e307, -1e307, 0.0), told(1.7e308, 0.0, 0.0), told(0.0, 0.0, 0.0)):
            w = weights(losses, mu=mu, preference=[9.0, 1.0, 1.0])
            assert bool(w.isfinite().all())


def test_mu_is_a_length_in_units_of_the_losses():
    assert not SmoothTchebycheff.unit_free
    w = weights(LOSSES, mu=0.5)
    torch.testing.assert_close(weights(10 * LOSSES, mu=5.0), w)
    assert not torch.allclose(weights(10 * LOSSES, mu=0.5), w, rtol=0.1)
    with pytest.raises(ValueError, match="mu=0 is not allowed"):
        weights(LOSSES, mu=0)
