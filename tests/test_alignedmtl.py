"""Aligned-MTL against the singular value decomposition of the gradients."""

from __future__ import annotations

import pytest
import torch

from mtlsk.aggregators import AlignedMTL
from mtlsk.testing import gradients

SCALES = ["min", "median", "rmse"]


def weights(scale, j):
    return AlignedMTL(scale).task_weights(j @ j.T, torch.ones(len(j), dtype=torch.float64))


def aligned(scale, j):
    """Return sigma times the mean row of the orthogonal factor, from J = U S V'."""
    u, s, vh = torch.linalg.svd(j, full_matrices=False)
    kept = s > 1e-7 * s[0]
    u, s, vh = u[:, kept], s[kept], vh[kept]
    squared = {"min": s[-1] ** 2, "median": (s**2).median(), "rmse": (s**2).mean()}[scale]
    return squared.sqrt() * (u @ vh).mean(0)


@pytest.mark.parametrize("scale", SCALES)
def test_it_is_the_mean_row_of_the_orthogonal_factor(scale):
    for seed in range(30):
        j = gradients(seed, k=2 + seed % 5, m=9)
        expected = aligned(scale, j)
        d = weights(scale, j) @ j
        torch.testing.assert_close(d, expected, rtol=0, atol=1e-7 * float(expected.norm()))


@pytest.mark.parametrize("scale", SCALES)
def test_dependent_gradients_too(scale):
    for j in (gradients(0, k=5, m=3), torch.cat([gradients(1), gradients(1)[:1]])):
        torch.testing.assert_close(weights(scale, j) @ j, aligned(scale, j), rtol=1e-6, atol=1e-9)


def test_the_aligned_gradients_have_condition_number_one():
    """Each task's aligned gradient is the update for w0 = e_i: their Gramian is scale times I."""
    j = gradients(3)
    values, vectors = torch.linalg.eigh(j @ j.T)
    balance = values[0].sqrt() * vectors @ torch.diag(values**-0.5) @ vectors.T
    rows = balance @ j
    torch.testing.assert_close(rows @ rows.T, values[0] * torch.eye(3).double())
    torch.testing.assert_close(weights("min", j), balance.mean(1))


def test_by_hand():
    # orthogonal gradients of lengths 1, 2, 3: l^(-1/2) = 1, 1/2, 1/3, over K = 3
    j = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    base = torch.tensor([1 / 3, 1 / 6, 1 / 9], dtype=torch.float64)
    torch.testing.assert_close(weights("min", j), base)
    torch.testing.assert_close(weights("median", j), 2 * base)
    torch.testing.assert_close(weights("rmse", j), (14 / 3) ** 0.5 * base)
    even = j[:2, :2]  # of two eigenvalues the lower is the median
    assert weights("median", even).tolist() == weights("min", even).tolist()


def test_without_gradients_it_is_the_mean():
    zero = torch.zeros(3, 4, dtype=torch.float64)
    assert weights("min", zero).tolist() == [1 / 3] * 3
