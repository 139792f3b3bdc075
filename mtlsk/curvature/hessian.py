"""How much of the Hessian is Gauss-Newton and how much the residual part S."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlsk.autodiff import (
    gradient_with_graph,
    hessian_product,
    progress_by_double_backward,
    task_jacobian,
    weighted_gradient,
)
from mtlsk.curvature.copy64 import MAX_ROWS, Copy64, copy_of, flatten
from mtlsk.curvature.spectrum import Spectrum, Vector, estimated_spectrum, exact_spectrum

EXACT = 256
"""Parameters up to which the matrices themselves are computed, a product a column."""
PROBES = 32
"""Random vectors otherwise: they give a Frobenius norm to about a tenth."""
OBJECTIVES = {
    "mean_loss": "mean task loss; GN is J'HJ of the outputs",
    "h": "h = (1/K) sum_k L_k^2; GN = (2/K) J'J of the task losses",
}


@dataclass(frozen=True)
class HessianShares:
    """The Hessian of an objective as GN + S, over the trainable parameters.

    Attributes
    ----------
    objective : str
        ``"mean_loss"`` or ``"h"``.
    hessian, gauss_newton, residual : Spectrum
        Trace, Frobenius norm and eigenvalue of largest magnitude of GN + S, GN and S.
    n_parameters, n_rows : int
    exact : bool
        False where traces and norms are estimated from random vectors.
    """

    objective: str
    hessian: Spectrum
    gauss_newton: Spectrum
    residual: Spectrum
    n_parameters: int
    n_rows: int
    exact: bool

    @property
    def residual_share(self) -> float:
        """|S|_F / (|GN|_F + |S|_F), in [0, 1].

        Norms, not traces: S can have trace 0 without being 0.

        Raises
        ------
        ValueError
            Where both are zero.
        """
        total = self.residual.norm + self.gauss_newton.norm
        if total == 0:
            raise ValueError("the Hessian is zero on these rows: there is nothing to share out")
        return self.residual.norm / total


def hessian_shares(
    net: Any,
    X: Any,
    y: Any,
    *,
    objective: str = "mean_loss",
    parameters: str = "all",
    probes: int = PROBES,
    max_rows: int | None = MAX_ROWS,
    seed: int = 0,
) -> HessianShares:
    """Return how the Hessian splits into its Gauss-Newton part and the residual part S.

    - ``"mean_loss"``, (1/K) sum_k L_k: with f the outputs and H the Hessian of the objective in f,
      GN = J_f' H J_f and S is the rest, the curvature of the net itself times the slopes of the
      loss in f. For squared errors, H = 2/(K n_k): with one signed residual a row and output it
      is the classical split, and S vanishes where the net fits or is linear in its parameters.
    - ``"h"``, (1/K) sum_k L_k^2: GN = (2/K) J'J of the K task gradients (rank K at most), and
      S = (2/K) sum_k L_k Hess L_k, which is most of it in general.

    Rows are taken in evaluation mode, in float64. Networks with kinks (ReLU) have this Hessian
    almost everywhere, and no curvature at the kinks shows in it.

    Parameters
    ----------
    net : MultiTaskNet
        Fitted.
    X, y : as for ``fit``
    objective : "mean_loss" or "h"
    parameters : "all" or "shared"
    probes : int
        Random vectors for traces and norms where there are more than 256 parameters.
    max_rows : int or None
        At most so many evenly spaced rows.
    seed : int
        Of the random vectors.

    Raises
    ------
    ValueError
        For wrong parameters, or a module that cannot be differentiated twice.
    """
    if objective not in OBJECTIVES:
        allowed = " or ".join(map(repr, OBJECTIVES))
        raise ValueError(f"objective={objective!r} is not allowed; use {allowed}")
    if probes < 2:
        raise ValueError(f"probes={probes!r} is not allowed; take 2 or more")
    copy = copy_of(net, X, y, parameters=parameters, max_rows=max_rows)
    try:
        whole, part = _products(copy, objective)
        spectra, exact = _spectra(whole, part, copy.size, probes, seed)
    except RuntimeError as error:
        raise ValueError(
            f"the module cannot be differentiated twice: {str(error).splitlines()[0]}"
        ) from error
    return HessianShares(objective, *spectra, copy.size, len(copy.y), exact)


def _products(
    copy: Copy64, objective: str
) -> tuple[Callable[[Vector], Vector], Callable[[Vector], Vector]]:
    """Return v -> Hess v and v -> GN v."""
    outputs = copy.outputs()
    losses = copy.losses(outputs)
    with torch.enable_grad():
        value = losses.mean() if objective == "mean_loss" else (losses**2).mean()
    gradient = gradient_with_graph(value, copy.parameters)
    jacobian = torch.zeros(0)
    leaf, slope = outputs, outputs
    if objective == "h":
        jacobian = torch.cat(task_jacobian(losses, copy.parameters), dim=1)
    else:
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = gradient_with_graph(copy.losses(leaf).mean(), [leaf])

    def whole(v: Vector) -> Vector:
        return _numbers(hessian_product(gradient, _tensors(copy, v), copy.parameters))

    def part(v: Vector) -> Vector:
        if objective == "h":
            moved = jacobian.T @ (jacobian @ flatten(_tensors(copy, v)))
            return (2 / len(losses) * moved).cpu().numpy()
        flat = outputs.reshape(-1)
        along = progress_by_double_backward(flat, _tensors(copy, v), copy.parameters)
        (curved,) = hessian_product([slope], [along.reshape(outputs.shape)], [leaf])
        return _numbers(weighted_gradient(flat, curved.reshape(-1), copy.parameters))

    return whole, part


def real_hessian(copy: Copy64) -> Tensor:
    """Return the Hessian (M, M) of the mean task loss, a product a column."""
    whole, _ = _products(copy, "mean_loss")
    found = torch.from_numpy(np.stack([whole(v) for v in np.eye(copy.size)]))
    return (found + found.T) / 2


def _spectra(
    whole: Callable[[Vector], Vector],
    part: Callable[[Vector], Vector],
    size: int,
    probes: int,
    seed: int,
) -> tuple[tuple[Spectrum, Spectrum, Spectrum], bool]:
    """Return the summaries of the Hessian, GN and S, and whether they are exact."""
    exact = size <= EXACT
    rng = np.random.default_rng(seed)
    z = np.eye(size) if exact else rng.choice([-1.0, 1.0], size=(probes, size))
    h, gn = np.stack([whole(v) for v in z]), np.stack([part(v) for v in z])
    if exact:
        return (exact_spectrum(h), exact_spectrum(gn), exact_spectrum(h - gn)), True
    return (
        estimated_spectrum(z, h, whole, seed),
        estimated_spectrum(z, gn, part, seed),
        estimated_spectrum(z, h - gn, lambda v: whole(v) - part(v), seed),
    ), False


def _tensors(copy: Copy64, v: Vector) -> tuple[Tensor, ...]:
    device = copy.parameters[0].device
    return copy.unflatten(torch.from_numpy(np.ascontiguousarray(v).reshape(-1)).to(device))


def _numbers(tensors: tuple[Tensor, ...]) -> Vector:
    found: Vector = flatten(tensors).detach().cpu().numpy()
    return found
