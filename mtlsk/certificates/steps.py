"""Step lengths that a Gramian and losses vouch for, and the rate they give."""

from __future__ import annotations

import math

from torch import Tensor

from mtlsk.certificates.residuals import (
    Residual,
    check_not_negative,
    h,
    residual_gramian,
    residuals,
)


def gram_step(
    losses: Tensor,
    gramian: Tensor,
    weights: Tensor | None = None,
    residual: Residual = "losses",
) -> float:
    """Return the step eta along -d, d = J^T w, that minimises h with Phi linearised.

    With p = J_Phi d the slopes of Phi along d, eta = Phi'p / p'p. For d = grad h, the default,
    eta = (K/2) Phi'G_Phi Phi / (Phi'G_Phi^2 Phi), between K / (2 lambda_max) and
    K / (2 lambda_min) of G_Phi. Negative where d points uphill on h, inf where p = 0. It knows
    nothing of curvature: a heuristic.

    Parameters
    ----------
    losses : tensor of shape (K,)
    gramian : tensor of shape (K, K)
        G = J J^T of the losses; J_Phi = D J with ``"sqrt"``.
    weights : tensor of shape (K,), or None for grad h
        Of the losses' gradients.
    residual : "losses" or "sqrt"
        Phi = L (h the mean squared loss) or sqrt(L) (h the mean loss, grad h = g0).

    Raises
    ------
    ValueError
        With ``"sqrt"`` for a loss that is not positive.

    **Reference** CANON, doi 10.5281/zenodo.19454888, Gram-only step; general w is ours.
    """
    phi = residuals(losses, residual)
    if weights is None:
        progress = residual_gramian(losses, gramian, residual) @ (2 * phi / len(phi))
    else:
        progress = gramian @ weights
        progress = progress / (2 * phi) if residual == "sqrt" else progress
    squared = float(progress @ progress)
    return float(phi @ progress) / squared if squared > 0 else math.inf


def self_bounding_step(
    losses: Tensor, beta: float, gramian: Tensor | None = None, weights: Tensor | None = None
) -> float:
    """Return the step along -d at which h falls, for losses L_k >= 0 that are beta-smooth.

    eta = 1 / (9 beta sqrt(h)) for d = grad h: then h+ <= h - (eta / 2) |grad h|^2. With weights w
    of another direction d = J^T w it is that of d's projection on grad h,
    eta = <grad h, d> / (9 beta sqrt(h) |d|^2) with grad h = (2/K) J^T L (ours): negative uphill.
    inf where h = 0 or d = 0.

    Phi_k = L_k only: the square root of a loss is not smooth where the loss is zero, so there is
    no such step for Phi = sqrt(L); see :func:`signed_step` for signed residuals.

    Parameters
    ----------
    losses : tensor of shape (K,)
    beta : float
        Largest Lipschitz constant of a task loss's gradient, everywhere; above 0.
    gramian, weights : tensors of shapes (K, K) and (K,), or None for d = grad h

    Raises
    ------
    ValueError
        For a negative loss or a beta that is not positive.

    **Reference** CANON, doi 10.5281/zenodo.19454888, self-bounding step. The constant 9 is the
    careful one: 6 can be proven too.
    """
    check_not_negative(losses, "the self-bounding step")
    _check_positive("beta", beta)
    value = h(losses)
    if value <= 0:
        return math.inf
    eta = 1 / (9 * beta * math.sqrt(value))
    if gramian is None or weights is None:
        return eta
    progress = gramian @ weights
    squared = float(weights @ progress)
    if squared <= 0:
        return math.inf
    return eta * 2 / len(losses) * float(losses @ progress) / squared


def signed_step(phi: Tensor, beta: float, bound: float) -> float:
    """Return the step eta = 1 / (2 B^2/K + 2 beta sqrt(h)) along -grad h, for signed residuals.

    h then does not rise: h+ <= h - (eta/2) |grad h|^2, because the Hessian of h is at most
    (2/K) |J|^2 + 2 beta sqrt(h).

    Parameters
    ----------
    phi : tensor of shape (K,)
        Residuals of any sign, each beta-smooth.
    beta : float
        Largest Lipschitz constant of a residual's gradient, from 0 on (0: linear residuals).
    bound : float
        B with |J| <= B (operator norm), above 0, where h is not above its present value.

    Raises
    ------
    ValueError
        For a beta or bound out of its domain.

    **Reference** CANON, doi 10.5281/zenodo.19454888; the constants are derived.
    """
    _check_positive("bound", bound)
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta={beta!r} is not allowed; a smoothness is a number from 0 on")
    return 1 / (2 * bound**2 / len(phi) + 2 * beta * math.sqrt(h(phi)))


def linear_rate(mu: float, beta: float, n_tasks: int) -> float:
    """Return 1 - 4 mu / (9 beta K), by which each self-bounding step multiplies h at least.

    It holds along a path on which **all** of this does: the step is that of
    :func:`self_bounding_step` (a constant step is sublinear), the task gradients are orthogonal,
    and |grad L_k|^2 >= 2 mu L_k for every task.

    Raises
    ------
    ValueError
        Unless 0 < mu <= beta: beta-smooth losses that are never negative allow no more.
    """
    _check_positive("beta", beta)
    if not 0 < mu <= beta:
        raise ValueError(f"mu={mu!r} is not allowed; it is above 0 and at most beta={beta:g}")
    return 1 - 4 * mu / (9 * beta * n_tasks)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r} is not allowed; it is a number above 0")
