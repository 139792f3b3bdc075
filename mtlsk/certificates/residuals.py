"""The residuals Phi of h = (1/K) sum_k Phi_k^2: task losses, or their square roots."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mtlsk.gramian import EPS, cosines

Residual = Literal["losses", "sqrt"]
RESIDUALS: tuple[Residual, ...] = ("losses", "sqrt")
"""``"losses"``: Phi_k = L_k, so h is the mean squared loss; ``"sqrt"``: Phi_k = sqrt(L_k), so h is
the mean loss."""


def residuals(losses: Tensor, residual: Residual = "losses") -> Tensor:
    """Return Phi (K,): the losses, or their square roots.

    Raises
    ------
    ValueError
        For another word, and with ``"sqrt"`` for a loss that is not positive: sqrt has no
        derivative at 0.
    """
    if residual == "losses":
        return losses
    if residual != "sqrt":
        allowed = " or ".join(map(repr, RESIDUALS))
        raise ValueError(f"residual={residual!r} is not allowed; use {allowed}")
    if bool((losses <= 0).any()):
        k = int((losses <= 0).nonzero()[0])
        raise ValueError(
            f"Phi_k = sqrt(L_k) needs losses above 0; that of task {k} is {float(losses[k]):g}; "
            "take residual='losses'"
        )
    return losses.sqrt()


def residual_gramian(losses: Tensor, gramian: Tensor, residual: Residual = "losses") -> Tensor:
    """Return the Gramian of the gradients of Phi (K, K): G itself, or D G D, D = diag(1/(2 Phi)).

    The factor 1/(2 sqrt(L_k)) is the derivative of the square root.
    """
    phi = residuals(losses, residual)
    if residual == "losses":
        return gramian
    inverse = 1 / (2 * phi)
    return gramian * inverse[:, None] * inverse


def h(losses: Tensor, residual: Residual = "losses") -> float:
    """Return h = (1/K) sum_k Phi_k^2, the objective of the certificates.

    The mean squared loss (unit: loss squared) for Phi = L, the mean loss for Phi = sqrt(L).

    **Reference** CANON, doi 10.5281/zenodo.19454888; which Phi it means is our reading.
    """
    return float((residuals(losses, residual) ** 2).mean())


def squared_gradient(losses: Tensor, gramian: Tensor, residual: Residual = "losses") -> float:
    """Return |grad h|^2 = (4/K^2) Phi' G_Phi Phi, over the parameters that G is of."""
    phi = residuals(losses, residual)
    g = residual_gramian(losses, gramian, residual)
    return 4 * max(float(phi @ g @ phi), 0.0) / len(phi) ** 2


def check_not_negative(losses: Tensor, what: str) -> None:
    """Raise ValueError, naming task and value, for a loss below 0: it has no zero to reach."""
    if bool((losses < 0).any()):
        k = int((losses < 0).nonzero()[0])
        raise ValueError(
            f"{what} needs losses that are never negative; that of task {k} is {float(losses[k]):g}"
        )


def smallest_eigenvalue(gramian: Tensor, rounding: float) -> float:
    """Return a lower bound on lambda_min(G) that rounding cannot exceed.

    With entries of G off by at most e |g_i| |g_j| the exact Gramian is at least
    (1 - e K / lambda_min(C)) G in the order of matrices, C the cosines: however different the
    lengths of the gradients are (ours).

    Parameters
    ----------
    gramian : tensor of shape (K, K)
    rounding : float
        e, the relative error of the entries.

    Raises
    ------
    ValueError
        If nothing is left: the gradients are linearly dependent, or too nearly so to tell.
    """
    k, eigenvalues = len(gramian), torch.linalg.eigvalsh(gramian)
    lowest = float(eigenvalues[0]) - 4 * k * EPS * float(eigenvalues[-1])
    angle = float(torch.linalg.eigvalsh(cosines(gramian))[0])
    if angle <= rounding * k or lowest <= 0:
        raise ValueError(
            "the tasks' gradients are linearly dependent, or so nearly that rounding hides it: "
            "lambda_min(G) is 0 for all that is known, and no bound divides by it"
        )
    return lowest * (1 - rounding * k / angle)
