"""Newton-Schulz against the singular value decomposition, scalar by scalar."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtlsk.optimizers import orthogonal
from mtlsk.optimizers.orthogonal import COEFFICIENTS, orthogonalize, orthogonalize_all


def draws(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def polynomial(s, steps=5):
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("steps", [1, 3, 5, 8])
def test_each_singular_value_is_mapped_and_the_vectors_stay(shape, steps):
    m = draws(*shape)
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    expected = u @ torch.diag(polynomial(s / s.norm(), steps)) @ vh
    torch.testing.assert_close(orthogonalize(m, steps), expected, rtol=1e-10, atol=1e-12)


def test_where_singular_values_arrive():
    arrived = polynomial(np.geomspace(1.6e-3, 1, 200_001))
    assert 0.68 < arrived.min() < 0.685
    assert 1.2 < arrived.max() < 1.21
    assert polynomial(1e-6) / 1e-6 == pytest.approx(3.4445**5, rel=1e-6)
    assert polynomial(1.3e-3) < 0.62  # not yet


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_precision_is_the_matrix_s_own(dtype):
    m = draws(8, 5, dtype=dtype)
    found = orthogonalize(m)
    assert found.dtype == dtype
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-12, torch.bfloat16: 0.1}[dtype]
    expected = orthogonalize(m.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e12])
def test_it_does_not_feel_the_length(scale, dtype):
    m = draws(5, 8, dtype=dtype)
    torch.testing.assert_close(orthogonalize(scale * m), orthogonalize(m), rtol=1e-4, atol=1e-5)


def test_a_zero_matrix_stays_zero_and_the_input_as_it_was():
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))
    m = draws(4, 3)
    before = m.clone()
    orthogonalize(m)
    assert torch.equal(m, before)


@pytest.mark.parametrize("batch", [(3,), (2, 3), (1,)])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_leading_dimensions_are_a_batch(batch, shape):
    m = draws(*batch, *shape)
    found = orthogonalize(m)
    assert found.shape == m.shape
    for one, matrix in zip(found.reshape(-1, *shape), m.reshape(-1, *shape), strict=True):
        torch.testing.assert_close(one, orthogonalize(matrix), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("together", [0, 1 << 13])
def test_many_matrices_at_once(monkeypatch, together):
    monkeypatch.setattr(orthogonal, "TOGETHER", together)
    shapes = [(4, 6), (6, 4), (4, 6), (3, 3), (4, 6)]
    matrices = [draws(*shape, seed=i) for i, shape in enumerate(shapes)]
    matrices.append(draws(4, 6, dtype=torch.float32))
    for m, found in zip(matrices, orthogonalize_all(matrices, 4), strict=True):
        assert (found.shape, found.dtype) == (m.shape, m.dtype)
        torch.testing.assert_close(found, orthogonalize(m, 4), rtol=1e-5, atol=1e-5)
    assert orthogonalize_all([]) == []
