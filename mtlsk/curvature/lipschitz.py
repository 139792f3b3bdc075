"""How fast the Jacobian of a net's outputs can change: a bound that holds, and an estimate."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtlsk.autodiff import task_jacobian
from mtlsk.curvature.copy64 import Copy64
from mtlsk.modules import HardSharing


class Shape(NamedTuple):
    """sup |phi'|, sup |phi''|, sup |phi| and |phi(0)| of an activation phi."""

    slope: float
    bend: float
    height: float
    zero: float


SHAPES: dict[type[nn.Module], Shape] = {
    nn.Tanh: Shape(1.0, 4 / (3 * math.sqrt(3)), 1.0, 0.0),
    nn.Sigmoid: Shape(0.25, 1 / (6 * math.sqrt(3)), 1.0, 0.5),
    nn.Identity: Shape(1.0, 0.0, math.inf, 0.0),
    nn.Softplus: Shape(1.0, 0.25, math.inf, math.log(2)),
    nn.SiLU: Shape(1.1, 0.5, math.inf, 0.0),
    nn.GELU: Shape(1.13, 0.8, math.inf, 0.0),
    nn.ELU: Shape(1.0, 1.0, math.inf, 0.0),
}
"""Smooth activations as torch makes them by default; ReLU has no such numbers: its slope jumps."""

KINKS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Threshold,
    nn.Hardshrink, nn.Softshrink, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
)  # fmt: skip
"""Layers whose slope jumps."""


def kink_in(module: nn.Module) -> str | None:
    """Return the name of a layer whose slope jumps, None where no such layer is found."""
    return next((type(m).__name__ for m in module.modules() if isinstance(m, KINKS)), None)


def lipschitz_bound(copy: Copy64, labelled: Tensor, radius: float) -> float:
    """Return an L_J that holds on the ball of a radius around the parameters (ours).

    For the default module with a smooth activation. On the ball every weight has norm
    |W|_2 + radius at most; with z = W a + b, a' = phi(z), and A, D, B bounds of |a|, of |Da| and
    of |D^2 a| over all parameters,

        |Dz|^2 <= A^2 + 1 + |W|^2 D^2,      |D^2 z| <= D + |W| B,
        |Da'| <= s |Dz|,                    |D^2 a'| <= t |Dz|^2 + s |D^2 z|

    (a layer's own parameters and those before it are orthogonal parts of a unit vector, so
    2 x y D <= D), s = sup |phi'|, t = sup |phi''|, from layer to layer. The outputs of row i then
    have |D^2 f_i| <= B_i, and L_J = (sum_i B_i^2)^(1/2) over the labelled rows.

    Raises
    ------
    ValueError
        For any other module.
    """
    module = copy.module
    if type(module) is not HardSharing:
        raise ValueError(
            f"no bound on L_J is known for {type(module).__name__}, only for the default module; "
            "give lipschitz=... or lipschitz='estimated'"
        )
    a = copy.X[labelled].norm(dim=1)  # A, D and B for each row
    d, b = torch.zeros_like(a), torch.zeros_like(a)
    for layer in module.trunk:
        if isinstance(layer, nn.Linear):
            a, d, b = _linear(layer, a, d, b, radius)
            width = layer.out_features
        elif type(layer) in SHAPES:
            shape = SHAPES[type(layer)]
            a, b = _activated(shape, a, width), shape.bend * d**2 + shape.slope * b
            d = shape.slope * d
        else:
            raise ValueError(
                f"no bound on L_J is known for a trunk with {type(layer).__name__}; use a smooth "
                "activation such as 'tanh', give lipschitz=..., or lipschitz='estimated'"
            )
    # a skip from the inputs is linear in its parameters: it bends nothing
    _, _, b = _linear(module.head, a, d, b, radius)
    return float(b.norm())


def _linear(
    layer: nn.Linear, a: Tensor, d: Tensor, b: Tensor, radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    norm = float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) + radius
    bias = 0.0 if layer.bias is None else float(layer.bias.detach().norm()) + radius
    own = a if layer.bias is None else (a**2 + 1).sqrt()
    return norm * a + bias, torch.hypot(own, norm * d), d + norm * b


def _activated(shape: Shape, a: Tensor, width: int) -> Tensor:
    grown = shape.slope * a + shape.zero * math.sqrt(width)
    return grown.clamp_max(shape.height * math.sqrt(width))


def estimated_lipschitz(
    copy: Copy64, labelled: Tensor, radius: float, *, samples: int = 16, seed: int = 0
) -> float:
    """Return the largest |J(b) - J(a)| / |b - a| seen at random points of a ball: **an estimate**.

    L_J can only be larger, so nothing is certified by it.

    Parameters
    ----------
    copy : Copy64
    labelled : bool tensor of shape (n, K)
        The residuals that J is of.
    radius : float
    samples : int
        Points, half of them on the sphere and half inside.
    seed : int
    """
    centre = [p.detach().clone() for p in copy.parameters]
    here = residual_jacobian(copy, labelled)
    generator = torch.Generator().manual_seed(seed)
    largest = 0.0
    try:
        for i in range(samples):
            v = torch.randn(copy.size, generator=generator, dtype=torch.float64).to(here)
            length = radius * (1.0 if i % 2 else (i + 1) / samples)
            steps = copy.unflatten(v * (length / v.norm()))
            move(copy, [c + step for c, step in zip(centre, steps, strict=True)])
            change = residual_jacobian(copy, labelled) - here
            largest = max(largest, float(torch.linalg.matrix_norm(change, 2)) / length)
    finally:
        move(copy, centre)
    return largest


def move(copy: Copy64, values: list[Tensor]) -> None:
    """Set the parameters of a copy."""
    with torch.no_grad():
        for p, value in zip(copy.parameters, values, strict=True):
            p.copy_(value)


def residual_jacobian(copy: Copy64, labelled: Tensor) -> Tensor:
    """Return J (R, M) of the outputs that have a label, one row a row of X and output."""
    parts = []
    for rows, few in copy.few():
        with torch.enable_grad():
            chosen = few[labelled[rows]]
        if len(chosen):
            parts.append(torch.cat(task_jacobian(chosen, copy.parameters, batched=True), dim=1))
    return torch.cat(parts)
