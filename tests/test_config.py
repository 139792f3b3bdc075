"""ConFIG against its definition in J space."""

from __future__ import annotations

import math

import pytest
import torch

from mtlsk.aggregators import IMTLG, ConFIG
from mtlsk.testing import gradients


def weights(j, aggregator=None):
    live = aggregator or ConFIG()
    return live.task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


def defined(j):
    """Return eq. (2) and (3) of the paper on the matrix of gradients, over K."""
    units = j / j.norm(dim=1)[:, None]
    u = torch.linalg.pinv(units) @ torch.ones(len(j), dtype=torch.float64)
    u = u / u.norm()
    return (j @ u).sum() * u / len(j)


FOUR_IN_A_PLANE = torch.tensor([[-0.4, 0.5], [-0.2, 0.2], [0.7, 0.4], [8.4, -5.6]]).double()


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_papers_definition(seed):
    j = gradients(seed, k=2 + seed % 6, m=9, ratio=[1.0, 10.0, 1e3][seed % 3])
    expected = defined(j)
    torch.testing.assert_close(weights(j) @ j, expected, rtol=1e-7, atol=1e-9 * expected.norm())


def test_dependent_gradients_too():
    for j in (gradients(0, k=6, m=3), FOUR_IN_A_PLANE, torch.cat([gradients(1), gradients(1)])):
        torch.testing.assert_close(weights(j) @ j, defined(j), rtol=1e-6, atol=1e-9)


def test_its_cosines_to_independent_gradients_are_equal_and_positive():
    for seed in range(30):
        j = gradients(seed)
        d = weights(j) @ j
        cosines = j @ d / j.norm(dim=1) / d.norm()
        torch.testing.assert_close(cosines, cosines[:1].expand(3), rtol=1e-7, atol=0)
        assert cosines[0] > 0
        assert float(j.mean(0) @ d) > 0


def test_it_goes_the_other_way_than_imtlg_where_the_mean_does():
    j = FOUR_IN_A_PLANE.clone()
    j[3] *= 10
    d, other = weights(j) @ j, weights(j, IMTLG()) @ j
    torch.testing.assert_close(d / d.norm(), -other / other.norm())
    assert float(j.mean(0) @ d) > 0


def test_by_hand():
    # u = (1, 1)/sqrt 2, <g1, u> + <g2, u> = 3/sqrt 2, d = 3/4 (1, 1)
    j = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(weights(j), torch.tensor([3 / 8, 3 / 4]).double())


def test_opposite_gradients_give_zero():
    j = torch.tensor([[1.0, 2.0], [-3.0, -6.0]], dtype=torch.float64)
    w = weights(j)
    assert float((w @ j).norm()) <= 1e-12 * math.sqrt(45)
    assert float(w.sum()) == pytest.approx(1)


def test_a_zero_gradient_shortens_the_mean_only():
    j = gradients(5)
    with_zero = torch.cat([j, torch.zeros(1, 8, dtype=torch.float64)])
    torch.testing.assert_close(weights(with_zero)[:3], 0.75 * weights(j))
    assert weights(with_zero)[3] == 0


def test_gradients_in_balance_give_zero_and_not_rounding_blown_up():
    turns = torch.arange(3, dtype=torch.float64) * (2 * math.pi / 3)
    for norms in ([1.0, 1.0, 1.0], [1.0, 7.0, 0.3]):
        j = torch.stack([turns.cos(), turns.sin()], 1) * torch.tensor(norms).double()[:, None]
        w = weights(j)
        assert float((w @ j).norm()) <= 1e-12
        assert float(w.sum()) == pytest.approx(1)
