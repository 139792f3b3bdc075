"""The few primitives of automatic differentiation that engines are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_gradient(
    losses: Tensor, weights: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return the gradient of weights'losses over each parameter by one backward pass.

    The graph is kept, and a parameter the losses do not depend on gets zeros.

    Parameters
    ----------
    losses : tensor of shape (K,), with a graph
    weights : tensor of shape (K,)
    parameters : sequence of P tensors

    Returns
    -------
    P tensors of the parameters' shapes
    """
    if not parameters or not losses.requires_grad:
        return tuple(torch.zeros_like(p) for p in parameters)
    grads = torch.autograd.grad(
        losses,
        list(parameters),
        grad_outputs=weights.to(losses),
        retain_graph=True,
        allow_unused=True,
    )
    return tuple(
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)
    )


def task_jacobian(losses: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return J tensor by tensor: for each parameter the K task gradients, shape (K, numel).

    One backward pass a task, correct for any module; K x M numbers are held.
    """
    rows = [
        weighted_gradient(losses, row, parameters)
        for row in torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
    ]
    return tuple(torch.stack([row[i].reshape(-1) for row in rows]) for i in range(len(parameters)))
