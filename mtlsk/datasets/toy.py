"""The two-task toy problem on which CAGrad, Nash-MTL and FAMO are drawn."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TOY_STARTS", "toy_losses", "toy_minimum"]

# The five starts of the published pictures.
TOY_STARTS: tuple[tuple[float, float], ...] = (
    (-8.5, 7.5),
    (0.0, 0.0),
    (9.0, 9.0),
    (-7.5, -0.5),
    (9.0, -1.0),
)

# Under the logarithms: keeps the losses finite in their two sharp valleys.
FLOOR = 5e-6

# scale -> (x, mean loss): a dense grid, then a polish; the tests repeat both.
MINIMA = {
    1.0: ((0.0, -8.35511), -15.09164),
    0.1: ((-5.72727, -8.40940), -10.10367),
}


def toy_losses(x: Tensor, scale: float = 1.0) -> Tensor:
    """Two conflicting losses of a point in the plane, with a cliff-walled valley each.

    ``L1 = scale (f1 c1 + q1 c2)``, ``L2 = f2 c1 + q2 c2`` with::

        f1 = ln max(|(-x1 - 7) / 2 - tanh(-x2)|, 5e-6) + 6
        f2 = ln max(|(-x1 + 3) / 2 + tanh(-x2) + 2|, 5e-6) + 6
        q1 = ((-x1 + 7)^2 + .1 (-x2 - 8)^2) / 10 - 20
        q2 = ((-x1 - 7)^2 + .1 (-x2 - 8)^2) / 10 - 20
        c1 = max(tanh(x2 / 2), 0),   c2 = max(tanh(-x2 / 2), 0)

    Parameters
    ----------
    x : Tensor (..., 2)
        Points, of any floating dtype.
    scale : float
        Of the first loss: 1 in the CAGrad paper, 0.1 in the later ones.

    Returns
    -------
    Tensor (..., 2)
        The losses, differentiable in `x`.

    Raises
    ------
    ValueError
        Where the last axis of `x` is not of length 2.

    References
    ----------
    Liu, Liu, Jin, Stone and Liu, "Conflict-averse gradient descent for multi-task learning", 2021.
    """
    if x.ndim == 0 or x.shape[-1] != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; give points of the plane, (..., 2)")
    x1, x2 = x.unbind(-1)
    step = torch.tanh(-x2)
    f1 = ((-x1 - 7) / 2 - step).abs().clamp(min=FLOOR).log() + 6
    f2 = ((-x1 + 3) / 2 + step + 2).abs().clamp(min=FLOOR).log() + 6
    bowl = 0.1 * (-x2 - 8) ** 2
    q1 = ((-x1 + 7) ** 2 + bowl) / 10 - 20
    q2 = ((-x1 - 7) ** 2 + bowl) / 10 - 20
    # clamp has slope 1 at its kink, relu 0: with relu the start (0, 0) would never move.
    c1 = torch.tanh(x2 / 2).clamp(min=0)
    c2 = torch.tanh(-x2 / 2).clamp(min=0)
    return torch.stack([scale * (f1 * c1 + q1 * c2), f2 * c1 + q2 * c2], dim=-1)


def toy_minimum(scale: float = 1.0) -> tuple[tuple[float, float], float]:
    """Where the mean of the two toy losses is least, and its value there, to five decimals.

    Parameters
    ----------
    scale : float
        1 or 0.1, the two that are in use.

    Returns
    -------
    (x1, x2), value : tuple
        The minimiser of ``(L1 + L2) / 2`` and the minimum.

    Raises
    ------
    ValueError
        For any other scale.
    """
    if scale not in MINIMA:
        known = " or ".join(str(known) for known in MINIMA)
        raise ValueError(f"the minimum is not known for scale {scale!r}; give {known}")
    return MINIMA[scale]
