"""Kantorovich's certificate: an exact zero of signed residuals lies within a known distance."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Kantorovich(NamedTuple):
    """What the theorem says at one point.

    Attributes
    ----------
    radius : float
        rho: an exact zero of Phi lies within this distance, in parameter units.
    product : float
        t = L_J |J+| |J+ Phi|, at most 1/2.
    pinv : float
        |J+| = 1 / sigma_min(J).
    step : float
        |J+ Phi|, the length of the Gauss-Newton step to the nearest zero of the linearised Phi.
    """

    radius: float
    product: float
    pinv: float
    step: float


def kantorovich(jacobian: Tensor, phi: Tensor, lipschitz: float) -> Kantorovich:
    """Return the radius within which Phi has an exact zero, by the underdetermined Kantorovich.

    With t = L_J |J+| |J+ Phi| <= 1/2 there is a zero within rho = 2 |J+ Phi| / (1 + sqrt(1 - 2t)),
    at most 2 |J+ Phi|; Newton's method with J+ finds one.

    Phi must be **signed residuals**, one a row and output, never losses: the gradient of a loss
    that is never negative vanishes at its zero, where J would have no full rank.

    Parameters
    ----------
    jacobian : tensor of shape (R, M)
        J of R residuals over M parameters, R <= M.
    phi : tensor of shape (R,)
    lipschitz : float
        L_J, |J(a) - J(b)| <= L_J |a - b| (operator norm) on the ball of radius rho.

    Raises
    ------
    ValueError
        Outside the theorem: more residuals than parameters, a J without full row rank, a product
        above 1/2, or an L_J that is negative or not finite.

    **Reference** CANON, doi 10.5281/zenodo.19454888; the statement is Kantorovich's theorem with J+
    in place of the inverse, our reading of what "zero loss is reachable" can mean.
    """
    rows, columns = jacobian.shape
    if not 0 <= lipschitz < math.inf:
        raise ValueError(f"lipschitz={lipschitz!r} is not allowed; L_J is a number from 0 on")
    if rows > columns:
        raise ValueError(
            f"there are {rows} residuals and only {columns} parameters: J has no full row rank; "
            "take fewer rows or a wider net"
        )
    u, sigma, vt = torch.linalg.svd(jacobian.double(), full_matrices=False)
    if not float(sigma[-1]) > 1e-12 * columns * float(sigma[0]):
        raise ValueError(
            "J has no full row rank: rows repeat, or some outputs do not depend on the parameters"
        )
    pinv = 1 / float(sigma[-1])
    step = float((vt.T @ ((u.T @ phi.double()) / sigma)).norm())
    product = lipschitz * pinv * step
    if product > 0.5:
        raise ValueError(
            f"L_J |J+| |J+ Phi| = {product:.3g} is above 1/2: the point is too far from a zero "
            f"for the theorem (L_J {lipschitz:.3g}, |J+| {pinv:.3g}, |J+ Phi| {step:.3g})"
        )
    return Kantorovich(2 * step / (1 + math.sqrt(1 - 2 * product)), product, pinv, step)
