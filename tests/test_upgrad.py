"""UPGrad against projections carried out on the gradients themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtlsk.aggregators import UPGrad
from mtlsk.simplex import shortest_increase
from mtlsk.testing import gradients


def weights(j):
    return UPGrad().task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


def projection(j, target):
    """Return argmin |d - target| s.t. J d >= 0, by SLSQP on d."""
    norms = np.linalg.norm(j, axis=1)
    size = np.linalg.norm(target)
    found = minimize(
        lambda x: (x - target / size) @ (x - target / size) / 2,
        np.zeros(j.shape[1]),
        jac=lambda x: x - target / size,
        constraints={
            "type": "ineq",
            "fun": lambda x: j @ x / norms,
            "jac": lambda x: j / norms[:, None],
        },
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 500},
    )
    return size * found.x


@pytest.mark.parametrize("seed", range(15))
def test_it_is_the_mean_of_the_projections(seed):
    j = gradients(seed, k=2 + seed % 5, m=7)
    expected = np.mean([projection(j.numpy(), g) for g in j.numpy()], 0)
    d = (weights(j) @ j).numpy()
    np.testing.assert_allclose(d, expected, atol=1e-5 * np.linalg.norm(expected))


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6])
def test_the_increases_of_several_starts_satisfy_kkt_each(ratio):
    for seed in range(12):
        j = gradients(seed, k=5, m=9, ratio=ratio).numpy()
        norms = np.linalg.norm(j, axis=1)
        starts = np.eye(5)
        a = shortest_increase(j @ j.T, starts)
        np.testing.assert_array_equal(a[2], shortest_increase(j @ j.T, starts[2]))
        for i in range(5):
            u, d = a[i] - starts[i], a[i] @ j
            progress = j @ d / norms / norms[i]
            assert u.min() >= 0
            assert progress.min() >= -1e-9
            assert np.abs(progress[u * norms > 1e-9 * norms[i]]).max(initial=0) <= 1e-9


def test_it_never_conflicts_whatever_the_norms():
    for seed in range(60):
        j = gradients(seed, k=2 + seed % 8, m=12, ratio=[10.0, 1e3, 1e6][seed % 3])
        d = weights(j) @ j
        assert bool((j @ d >= -1e-9 * j.norm(dim=1) * d.norm()).all())


def test_by_hand():
    # g1 = (1, 0), g2 = (-1, 1): projections (1, 1)/2 and (0, 1)
    j = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(weights(j), torch.tensor([1.0, 0.75]).double())
    agreeing = j.abs()
    assert weights(agreeing).tolist() == [0.5, 0.5]


def test_tasks_in_balance_stop_themselves_only():
    j = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [3.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(weights(j) @ j, torch.tensor([0.0, 1.0]).double())


def test_a_zero_gradient_shortens_the_mean_only():
    j = gradients(2)
    with_zero = torch.cat([j[:1], torch.zeros(1, 8, dtype=torch.float64), j[1:]])
    w = weights(with_zero)
    assert w[1] == 0
    torch.testing.assert_close(w[[0, 2, 3]], 0.75 * weights(j))
