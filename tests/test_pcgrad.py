"""PCGrad against the algorithm carried out on the gradients themselves."""

from __future__ import annotations

import pytest
import torch

from mtlsk.aggregators import PCGrad
from mtlsk.testing import gradients


def weights(j, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PCGrad().task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


def carried_out(j, orders):
    """Return the update of the printed algorithm, over K, for given orders of the others."""
    total = torch.zeros(j.shape[1], dtype=torch.float64)
    for i, order in enumerate(orders):
        g = j[i].clone()
        for other in order:
            if other != i and g @ j[other] < 0:
                g -= (g @ j[other]) / (j[other] @ j[other]) * j[other]
        total += g
    return total / len(j)


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_printed_algorithm_in_the_orders_drawn(seed):
    j = gradients(seed, k=2 + seed % 6, m=9)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        orders = torch.rand(len(j), len(j), dtype=torch.float64).argsort(1).tolist()
    d = weights(j, seed) @ j
    torch.testing.assert_close(d, carried_out(j, orders), rtol=1e-9, atol=1e-9)


def test_a_gradient_turned_against_itself_is_not_projected_off_itself():
    """Off the second and then the third, what is left of the first opposes it."""
    j = torch.tensor([[1.0, 0.0], [-0.9, 0.5], [-0.9, -0.5]], dtype=torch.float64)
    for seed in range(20):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            orders = torch.rand(3, 3, dtype=torch.float64).argsort(1).tolist()
        torch.testing.assert_close(weights(j, seed) @ j, carried_out(j, orders))


def test_by_hand():
    # g1 = (1, 0), g2 = (-1, 1): g1' = (1, 1)/2, g2' = (0, 1)
    j = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(weights(j) @ j, torch.tensor([0.25, 0.75]).double())
    torch.testing.assert_close(weights(j), torch.tensor([1.0, 0.75]).double())


def test_without_conflicts_it_is_the_mean():
    j = gradients(0, k=4).abs()
    assert weights(j).tolist() == [0.25] * 4


def test_two_tasks_never_conflict_and_three_may():
    def conflicts(k, seed):
        j = gradients(seed, k=k)
        d = weights(j, seed) @ j
        return bool((j @ d < -1e-9 * j.norm(dim=1) * d.norm()).any())

    assert not any(conflicts(2, seed) for seed in range(60))
    assert any(conflicts(3, seed) for seed in range(60))


def test_every_order_of_the_others_is_as_likely():
    """Three tasks that conflict pairwise: the two orders of each give eight updates in all."""
    j = torch.tensor([[1.0, 0.0, 0.1], [-0.4, 1.0, 0.0], [-0.5, -0.6, 1.0]], dtype=torch.float64)
    seen: dict[tuple[float, ...], int] = {}
    for seed in range(800):
        w = tuple(round(x, 9) for x in weights(j, seed).tolist())
        seen[w] = seen.get(w, 0) + 1
    assert len(seen) == 8
    assert all(60 <= count <= 140 for count in seen.values()), seen


def test_a_zero_gradient_changes_the_mean_only():
    j = gradients(2)
    with_zero = torch.cat([j[:1], torch.zeros(1, 8, dtype=torch.float64), j[1:]])
    expected = {tuple((0.75 * (weights(j, s) @ j)).round(decimals=9).tolist()) for s in range(60)}
    found = set()
    for seed in range(60):
        w = weights(with_zero, seed)
        assert w[1] == 0
        found.add(tuple((w @ with_zero).round(decimals=9).tolist()))
    assert found == expected
    assert len(found) > 1  # those left come in a random order
