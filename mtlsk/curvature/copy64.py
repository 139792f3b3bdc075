"""A fitted net's module in float64 and evaluation mode, with rows to look at it on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mtlsk.descent import split_parameters
from mtlsk.estimators import MultiTaskNet

MAX_ROWS = 1024
"""Rows that curvature is looked at on: more make it dearer and hardly change a share or a rank."""

AT_ONCE = 64
"""Outputs of which a Jacobian is taken in one pass."""
ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Copy64:
    """What curvature is computed from.

    Attributes
    ----------
    net : MultiTaskNet
    module : torch module
        A copy in float64.
    parameters : list of M tensors
        Its trainable parameters: all, or those the tasks share.
    originals : list of M tensors
        The net's own, in the same order: keys of the optimizer's state.
    X, y : float64 tensors of shapes (n, d) and (n, K)
        Evenly spaced rows; NaN in y is a missing label.
    n_given : int
        Rows that they were chosen from.
    """

    net: MultiTaskNet
    module: nn.Module
    parameters: list[Tensor]
    originals: list[Tensor]
    X: Tensor
    y: Tensor
    n_given: int

    def outputs(self, rows: slice = ALL) -> Tensor:
        """Return the outputs (n, W) of some rows, with a graph."""
        with torch.enable_grad():
            return self.net._checked_outputs(self.module(self.X[rows]))

    def few(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of few rows with their outputs: a Jacobian's passes cost rows squared."""
        step = max(1, AT_ONCE // self.net.tasks_[-1].slice.stop)
        for start in range(0, len(self.X), step):
            rows = slice(start, start + step)
            yield rows, self.outputs(rows)

    def losses(self, outputs: Tensor) -> Tensor:
        """Return the losses of the tasks with a label among the rows, with a graph."""
        with torch.enable_grad():
            losses, rows = self.net.task_losses(outputs, self.y, self.X)
            return losses[rows > 0]

    @property
    def size(self) -> int:
        """Number of parameters as one vector."""
        return sum(p.numel() for p in self.parameters)

    def unflatten(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Return a vector (size,) as tensors of the parameters' shapes."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return tuple(v.reshape(p.shape) for v, p in zip(parts, self.parameters, strict=True))


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors as one vector."""
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)


def copy_of(
    net: Any, X: Any, y: Any, *, parameters: str = "all", max_rows: int | None = MAX_ROWS
) -> Copy64:
    """Return a float64 copy of a fitted net with rows of X and y.

    Parameters
    ----------
    net : MultiTaskNet
        Fitted.
    X, y : as for ``fit``, of the net itself (after a pipeline's transformers)
    parameters : "all" or "shared"
        The trainable parameters, or those that the tasks share.
    max_rows : int or None
        At most so many evenly spaced rows; None for all.

    Raises
    ------
    ValueError
        For wrong input, or where there is no such parameter.
    """
    check_is_fitted(net)
    if parameters not in ("all", "shared"):
        raise ValueError(f"parameters={parameters!r} is not allowed; use 'all' or 'shared'")
    features, targets, _ = net._check(X, y, reset=False, weighted=False)
    n = len(targets)
    if max_rows is not None and n > max_rows:
        chosen = np.linspace(0, n - 1, max_rows).astype(int)
        features, targets = features[chosen], targets[chosen]
    plain = features.toarray() if issparse(features) else features
    own = getattr(net.module_, "_orig_mod", net.module_)  # compiled ones are differentiated once
    module = copy.deepcopy(own).double().eval()
    shared = {id(p) for p in split_parameters(own, len(net.task_names_))[0]}
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(module.parameters(), own.parameters(), strict=True)
        if theirs.requires_grad and (parameters == "all" or id(theirs) in shared)
    ]
    if not pairs:
        raise ValueError(f"the net has no {parameters} parameters that are trained")
    device = next(module.parameters()).device
    return Copy64(
        net,
        module,
        [mine for mine, _ in pairs],
        [theirs for _, theirs in pairs],
        torch.as_tensor(plain, device=device).double(),
        torch.as_tensor(targets, device=device).double(),
        n,
    )
