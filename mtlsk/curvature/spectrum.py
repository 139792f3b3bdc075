"""Trace, Frobenius norm and the outermost eigenvalue of a symmetric matrix known by products."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh

Vector = NDArray[np.float64]
Product = Callable[[Vector], Vector]


class Spectrum(NamedTuple):
    """What is known of a symmetric matrix A.

    Attributes
    ----------
    trace, trace_error : float
        tr A and its standard error, 0 where it is exact.
    norm : float
        |A|_F.
    top : float
        The eigenvalue of largest magnitude.
    """

    trace: float
    trace_error: float
    norm: float
    top: float


def exact_spectrum(matrix: Vector) -> Spectrum:
    """Return the spectrum's summary of a matrix (M, M) at hand."""
    eigenvalues = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    top = eigenvalues[np.argmax(np.abs(eigenvalues))]
    norm = float(np.sqrt((eigenvalues**2).sum()))
    return Spectrum(float(eigenvalues.sum()), 0.0, norm, float(top))


def estimated_spectrum(probes: Vector, products: Vector, product: Product, seed: int) -> Spectrum:
    """Return the summary from random products: Hutchinson's estimates, and Lanczos for the top.

    E z'Az = tr A and E |Az|^2 = |A|_F^2 for random signs z.

    Parameters
    ----------
    probes, products : arrays of shape (n, M)
        Rows z of random signs, and A z.
    product : callable
        v (M,) -> A v.
    seed : int
        Of Lanczos' first vector.
    """
    traces = (probes * products).sum(1)
    error = float(traces.std(ddof=1) / np.sqrt(len(traces))) if len(traces) > 1 else np.inf
    norm = float(np.sqrt((products**2).sum(1).mean()))
    return Spectrum(float(traces.mean()), error, norm, outermost(product, probes.shape[1], seed))


def outermost(product: Product, size: int, seed: int) -> float:
    """Return the eigenvalue of largest magnitude, by Lanczos (ARPACK), relative error 1e-4."""
    start = np.random.default_rng(seed).standard_normal(size)
    if not np.any(product(start)):  # ARPACK cannot start on a zero matrix
        return 0.0
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    (top,) = eigsh(operator, 1, which="LM", v0=start, tol=1e-4, return_eigenvectors=False)
    return float(top)
