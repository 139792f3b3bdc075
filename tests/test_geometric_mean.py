"""GeometricMean: the gradient by autograd, units, zeros and negative losses."""

from __future__ import annotations

import pytest
import torch

from mtlsk.aggregators import GeometricMean


def told(*losses):
    return torch.tensor(losses, dtype=torch.float64)


def test_it_is_the_gradient_of_the_geometric_mean():
    generator = torch.Generator().manual_seed(0)
    for k in range(1, 8):
        losses = 10 * torch.rand(k, generator=generator, dtype=torch.float64)
        losses.requires_grad_(True)
        mean = losses.prod() ** (1 / k)
        (gradient,) = torch.autograd.grad(mean, losses)
        w = GeometricMean().task_weights(None, losses.detach())
        torch.testing.assert_close(w, gradient, rtol=1e-9, atol=0)


def test_by_hand():
    # GM(1, 8, 27)= 6: 6 / (3 L)
    w = GeometricMean().task_weights(None, told(1.0, 8.0, 27.0))
    torch.testing.assert_close(w, told(2.0, 0.25, 2 / 27))


def test_its_length_follows_the_losses_and_its_direction_no_unit():
    losses, units = told(0.3, 2.0, 5.0), told(10.0, 0.1, 7.0)
    w = GeometricMean().task_weights(None, losses)
    one = GeometricMean().task_weights(None, 100 * losses)
    torch.testing.assert_close(one, w)  # so d grows as the losses do
    other = units * GeometricMean().task_weights(None, units * losses)  # of the raw gradients
    torch.testing.assert_close(other / other.sum(), w / w.sum())


def test_a_loss_of_zero_drops_out():
    w = GeometricMean().task_weights(None, told(0.5, 0.0, 8.0))
    assert w[1] == 0
    torch.testing.assert_close(w[[0, 2]], GeometricMean().task_weights(None, told(0.5, 8.0)))
    assert GeometricMean().task_weights(None, told(0.0, 0.0)).tolist() == [0.5, 0.5]


def test_losses_of_any_size_give_finite_weights():
    for losses in (told(1e-320, 1e307), told(5e-324, 1.0, 1e307), told(1e307, 1e307)):
        assert bool(GeometricMean().task_weights(None, losses).isfinite().all())


def test_a_negative_loss_names_its_task():
    live = GeometricMean()
    with pytest.raises(ValueError, match=r"the loss of task 1 is -0.5: GeometricMean takes"):
        live.task_weights(None, told(1.0, -0.5, 2.0))
    live.active_ = (0, 3)
    with pytest.raises(ValueError, match="the loss of task 3 is -2"):
        live.task_weights(None, told(1.0, -2.0))
