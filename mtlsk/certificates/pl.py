"""The Polyak-Lojasiewicz certificate: the gradient of h alone bounds how far h is from zero."""

from __future__ import annotations

from torch import Tensor

from mtlsk.certificates.residuals import (
    Residual,
    check_not_negative,
    residual_gramian,
    smallest_eigenvalue,
    squared_gradient,
)
from mtlsk.gramian import EPS

ROUNDING = 64 * EPS
"""Relative error of the entries of a Gramian that is as exact as float64."""


def pl_constant(
    losses: Tensor, gramian: Tensor, residual: Residual = "losses", *, rounding: float = ROUNDING
) -> float:
    """Return mu = 2 lambda_min(G_Phi) / K, the largest with |grad h|^2 >= 2 mu h for every Phi.

    A stationary point of h at which mu > 0 has h = 0. (Stationary points with h > 0 have dependent
    gradients, and can be minima: that all of them are saddles, as is sometimes said, is false.)

    Raises
    ------
    ValueError
        For a singular G, a negative loss, or with ``"sqrt"`` one that is zero.
    """
    check_not_negative(losses, "the PL certificate")
    g = residual_gramian(losses, gramian, residual)
    return 2 * smallest_eigenvalue(g, rounding) / len(losses)


def pl_bound(
    losses: Tensor, gramian: Tensor, residual: Residual = "losses", *, rounding: float = ROUNDING
) -> float:
    """Return B with h <= B = K |grad h|^2 / (4 lambda_min(G_Phi)), the certified gap to zero.

    h is never negative, so h itself is the gap to zero loss, and B bounds it by the gradient: B
    near h says that what is left of h shows in its gradient; a B far above h says that most of h
    lies in directions in which tasks can hardly be told apart. In the units of h.

    It is a statement about one point. Along a whole path on which mu = 2 lambda_min / K stays
    above some mu_0, gradient flow contracts h by exp(-2 mu_0 t): that mu stays there is not
    certified by one Gramian.

    Parameters
    ----------
    losses : tensor of shape (K,)
        L >= 0.
    gramian : tensor of shape (K, K)
        G of the losses' gradients; that of Phi is made here.
    residual : "losses" or "sqrt"
        Phi = L or sqrt(L).
    rounding : float
        Relative error of the entries of G, about 1e-6 for gradients in float32: it is taken off
        lambda_min, so that the bound holds for the exact Gramian too (ours).

    Raises
    ------
    ValueError
        As :func:`pl_constant`.

    **Reference** CANON, doi 10.5281/zenodo.19454888; the form with lambda_min(G) is derived from
    |grad h|^2 = (4/K^2) Phi'G_Phi Phi.
    """
    mu = pl_constant(losses, gramian, residual, rounding=rounding)
    return squared_gradient(losses, gramian, residual) / (2 * mu)
