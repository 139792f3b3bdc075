"""Pure functions of a Gramian, against the gradients behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtlsk.gramian import condition_number, cosines, mean_weights, min_cosine


def rows(seed, k=4, m=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, m, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_cosines_are_those_of_the_gradients(scale):
    j = rows(0) * scale
    j[2] *= 1e3
    expected = torch.nn.functional.cosine_similarity(j[:, None], j[None, :], dim=-1, eps=0.0)
    torch.testing.assert_close(cosines(j @ j.T), expected, rtol=0, atol=1e-14)


def test_cosines_stay_in_their_range_and_are_zero_for_a_zero_gradient():
    j = torch.cat([rows(1, 2), torch.zeros(1, 9, dtype=torch.float64)])
    j = torch.cat([j, 3 * j[:1], -7 * j[1:2]])
    cos = cosines(j @ j.T)
    assert bool((cos.abs() <= 1).all())
    assert float(cos[0, 3]) == pytest.approx(1, abs=1e-15)
    assert float(cos[1, 4]) == pytest.approx(-1, abs=1e-15)
    assert cos[2].tolist() == [0] * 5


def test_the_smallest_cosine_is_between_two_different_gradients():
    j = rows(2)
    pairs = [float(torch.cosine_similarity(j[a], j[b], dim=0)) for a in range(4) for b in range(a)]
    assert min_cosine(j @ j.T) == pytest.approx(min(pairs), abs=1e-14)
    # a zero gradient has no angle: it is left out although its cosines are 0
    aligned = torch.stack([j[0], j[0] + 0.1 * j[1], 0 * j[0]])
    assert min_cosine(aligned @ aligned.T) > 0.5
    assert min_cosine(torch.tensor([[3.0]], dtype=torch.float64)) == 1
    assert min_cosine(torch.zeros(2, 2, dtype=torch.float64)) == 1
    assert min_cosine(torch.tensor([[1.0, -2.0], [-2.0, 4.0]]).double()) == -1


@pytest.mark.parametrize("seed", range(4))
def test_the_condition_number_is_the_square_of_the_jacobians(seed):
    j = rows(seed, k=5)
    expected = np.linalg.cond(j.numpy()) ** 2
    assert condition_number(j @ j.T) == pytest.approx(expected, rel=1e-9)
    assert condition_number(1e-12 * j @ j.T) == pytest.approx(expected, rel=1e-9)


def test_the_condition_number_at_its_ends():
    eps = np.finfo(np.float64).eps
    double = torch.ones(2, 2, dtype=torch.float64)
    assert condition_number(double) == pytest.approx(1 / (2 * eps))  # singular: the bound
    assert condition_number(torch.diag(torch.tensor([4.0, 0.0, 1.0]).double())) == 4
    assert condition_number(torch.zeros(3, 3, dtype=torch.float64)) == 1
    assert condition_number(7 * torch.eye(3, dtype=torch.float64)) == 1


def test_mean_weights():
    w0 = mean_weights(torch.eye(4, dtype=torch.float64))
    assert w0.tolist() == [0.25] * 4
    assert w0.dtype == torch.float64
