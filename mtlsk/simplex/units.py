"""Unit gradients: their cosines, and the combination of them that all of them agree on."""

from __future__ import annotations

import numpy as np

from mtlsk.simplex.numerics import EPS, Array

ALONG_NOTHING = 1e-12
"""A component of 1 (of length sqrt(K)) below this is rounding."""


def unit_cosines(gramian: Array) -> tuple[Array, Array]:
    """Return (C, n): cosines C_ij = G_ij / (n_i n_j) and lengths n_k = sqrt(G_kk), all positive."""
    norms = np.sqrt(gramian.diagonal())
    return gramian / np.outer(norms, norms), norms


def spectrum(matrix: Array) -> tuple[Array, Array]:
    """Return the positive eigenvalues (r,), ascending, and their unit eigenvectors (K, r).

    Those up to 16 K eps of the largest cannot be told from zero and are left out.
    """
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 16 * len(values) * EPS * values[-1]
    return values[kept], vectors[:, kept]


def equal_projections(cosines: Array) -> tuple[Array, float]:
    """Return (x, 1'x) with x = C^+ 1 (K,): the unit gradients' projections on U'x are equal.

    All of them are 1 where the gradients are linearly independent, and as near to 1 as can be,
    in least squares, otherwise. 1'x is |U'x|^2, the sum of the projections; x = 0 and 1'x = 0
    where C 1 = 0, up to rounding: the projections can then be equal on the zero vector only.
    """
    values, vectors = spectrum(cosines)
    along = vectors.sum(0)
    along[np.abs(along) <= ALONG_NOTHING] = 0.0
    scaled = along / values
    x: Array = vectors @ scaled
    return x, float(along @ scaled)
