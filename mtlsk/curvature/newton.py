"""Gauss-Newton steps on a copy of a fitted net: how fast an exact fit is reached."""

from __future__ import annotations

from typing import Any

import torch

from mtlsk.curvature.copy64 import copy_of
from mtlsk.curvature.lipschitz import move, residual_jacobian


def gauss_newton(net: Any, X: Any, y: Any, *, steps: int = 10) -> list[float]:
    """Return |Phi| before each of some Gauss-Newton steps theta <- theta - J^+ Phi, and after them.

    Phi_ik = f_k(x_i) - y_ik, one a labelled row and target, J over all trainable parameters, in
    float64 and evaluation mode; the net is left alone. Near a zero of Phi at which J has full row
    rank |Phi| is about squared in each step; far from one full steps may diverge.

    Raises
    ------
    ValueError
        For wrong input, and targets that are no numbers.
    """
    copy = copy_of(net, X, y, max_rows=None)
    if any(task.kind != "regression" for task in net.tasks_):
        raise ValueError("Gauss-Newton needs signed residuals: all tasks must be regressions")
    labelled = ~copy.y.isnan()
    norms = []
    for _ in range(steps):
        phi = (copy.outputs() - copy.y)[labelled].detach()
        norms.append(float(phi.norm()))
        change = torch.linalg.pinv(residual_jacobian(copy, labelled)) @ phi
        parts = zip(copy.parameters, copy.unflatten(change), strict=True)
        move(copy, [p.detach() - part for p, part in parts])
    return [*norms, float((copy.outputs() - copy.y)[labelled].detach().norm())]
