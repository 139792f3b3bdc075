"""Whether the optimizer's second moment ranks the parameters as the Gauss-Newton diagonal does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mtlsk.autodiff import gradient_with_graph, hessian_product, task_jacobian
from mtlsk.curvature.copy64 import Copy64, copy_of, flatten

MAX_ROWS = 256
"""Rows for the diagonal: each costs a backward pass an output."""
SECOND_MOMENTS = ("exp_avg_sq",)
"""How torch's Adam, AdamW, NAdam, RAdam and Muon's AdamW call v."""


def moment_correlation(
    net: Any, X: Any, y: Any, *, max_rows: int | None = MAX_ROWS
) -> tuple[float, int]:
    """Return Spearman's correlation of the optimizer's v with diag(GN), and of how many numbers.

    GN = J_f' H J_f of the mean task loss in evaluation mode, on the rows given. v is the running
    mean of the squares of the *batch* gradients that the optimizer was fed, which for shared
    parameters are the aggregator's updates. A diagnosis, no certificate: a high value is mostly an
    effect of small batches (in the source's setting .96 at batches of 8 and .23 at full batch).

    Parameters
    ----------
    net : MultiTaskNet
        Fitted, with an optimizer of the Adam family.
    X, y : as for ``fit``
    max_rows : int or None
        At most so many evenly spaced rows.

    Raises
    ------
    ValueError
        If the optimizer keeps no second moment, has taken no step yet, or one of the two is
        constant.
    """
    check_is_fitted(net)
    moments = {
        p: _moment(net.optimizer_, p) for g in net.optimizer_.param_groups for p in g["params"]
    }
    if all(v is None for v in moments.values()):
        name = type(net.optimizer_).__name__
        raise ValueError(
            f"optimizer {name} keeps no second moment"
            + ("" if net.n_steps_ else " before its first step")
            + "; take the Adam family: 'Adam', 'AdamW', 'NAdam', 'RAdam'"
        )
    copy = copy_of(net, X, y, max_rows=max_rows)
    kept = [i for i, p in enumerate(copy.originals) if moments.get(p) is not None]
    diagonal = flatten([gauss_newton_diagonal(copy)[i].cpu() for i in kept]).numpy()
    v = flatten([moments[copy.originals[i]].double().cpu() for i in kept]).numpy()
    # those of one layer's biases are equal but for rounding, which must not rank them
    diagonal = np.exp(np.log(diagonal, where=diagonal > 0, out=np.full(len(v), -np.inf)).round(9))
    for what, values in (("diagonal of GN", diagonal), ("second moment", v)):
        if np.ptp(values) == 0:
            raise ValueError(f"the {what} is constant: ranks say nothing")
    return float(spearmanr(v, diagonal).statistic), len(v)


def _moment(optimizer: Any, parameter: Tensor) -> Any:
    state = optimizer.state.get(parameter, {})
    return next((state[name] for name in SECOND_MOMENTS if name in state), None)


def gauss_newton_diagonal(copy: Copy64) -> tuple[Tensor, ...]:
    """Return the exact diagonal of GN = J_f' H J_f of the mean task loss, a tensor a parameter.

    H, the Hessian of the objective in the outputs, is block-diagonal with one (W, W) block a row;
    with factors F F' = H (negative eigenvalues, of criteria that are not convex, count as 0) it is
    the sum of squares of the rows of F' J_f.
    """
    outputs = copy.outputs()
    leaf = outputs.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = gradient_with_graph(copy.losses(leaf).mean(), [leaf])
    blocks = []
    for column in range(leaf.shape[1]):
        unit = torch.zeros_like(leaf)
        unit[:, column] = 1.0
        blocks.append(hessian_product([slope], [unit], [leaf])[0])
    eigenvalues, vectors = torch.linalg.eigh(torch.stack(blocks, dim=2))  # (n, W), (n, W, W)
    factor = vectors * eigenvalues.clamp_min(0).sqrt()[:, None, :]
    total = [torch.zeros_like(p) for p in copy.parameters]
    for rows, few in copy.few():
        with torch.enable_grad():
            parts = torch.einsum("nwr,nw->nr", factor[rows], few)[eigenvalues[rows] > 0]
        if not len(parts):
            continue
        for t, j in zip(total, task_jacobian(parts, copy.parameters, batched=True), strict=True):
            t += (j**2).sum(0).reshape(t.shape)
    return tuple(total)
