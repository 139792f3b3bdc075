"""RandomWeighting: the two distributions, and where the draws come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mtlsk.aggregators import RandomWeighting

ONES = torch.ones(3, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def draws(n=4000, **params):
    live = RandomWeighting(**params)
    w = torch.stack([live.task_weights(None, ONES) for _ in range(n)])
    assert live.state_dict() == {}
    return w.numpy()


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_on_the_simplex_and_equal_on_average(distribution):
    w = draws(distribution=distribution)
    assert (w > 0).all()
    np.testing.assert_allclose(w.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(w.mean(0), 1 / 3, atol=0.015)
    assert len(np.unique(w[:, 0])) == len(w)  # another one in each call


def test_normal_is_the_softmax_of_a_normal():
    w = draws()
    # log w_i - log w_j = z_i - z_j ~ N(0, 2)
    ratios = np.log(w[:, 0] / w[:, 1])
    assert stats.kstest(ratios, "norm", args=(0, math.sqrt(2))).pvalue > 0.01
    assert stats.kstest(np.log(w[:, 2] / w[:, 1]), "norm", args=(0, math.sqrt(2))).pvalue > 0.01


def test_dirichlet_is_uniform_on_the_simplex():
    # of three: one coordinate has the density 2 (1 - x)
    w = draws(distribution="dirichlet")
    for k in range(3):
        assert stats.kstest(w[:, k], "beta", args=(1, 2)).pvalue > 0.01


def test_draws_are_those_of_torchs_generator():
    torch.manual_seed(3)
    z = torch.randn(3, dtype=torch.float64)
    torch.manual_seed(3)
    w = RandomWeighting().task_weights(None, ONES)
    torch.testing.assert_close(w, z.exp() / z.exp().sum())
    assert RandomWeighting.stochastic


def test_only_the_tasks_that_are_there_share():
    live = RandomWeighting()
    live.active_ = (0, 2)
    w = live.task_weights(None, ONES[:2])
    assert w.shape == (2,)
    assert float(w.sum()) == pytest.approx(1)
    assert RandomWeighting().task_weights(None, ONES[:1]).tolist() == [1.0]


def test_an_unknown_distribution():
    with pytest.raises(ValueError, match=r"distribution='cauchy' is not allowed.*'dirichlet'"):
        RandomWeighting(distribution="cauchy").check_domains()
