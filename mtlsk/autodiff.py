"""The few primitives of automatic differentiation that engines are made of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor


def weighted_gradient(
    losses: Tensor, weights: Tensor, parameters: Sequence[Tensor], *, keep_graph: bool = True
) -> tuple[Tensor, ...]:
    """Return the gradient of weights'losses over each parameter by one backward pass.

    A parameter the losses do not depend on gets zeros.

    Parameters
    ----------
    losses : tensor of shape (K,), with a graph
    weights : tensor of shape (K,)
    parameters : sequence of P tensors
    keep_graph : bool
        Keep what further passes need; without it memory is free for the next step at once.

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
        retain_graph=keep_graph,
        allow_unused=True,
    )
    return tuple(
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)
    )


def gradient_over_outputs(losses: Tensor, outputs: Tensor) -> Tensor:
    """Return the gradient of sum_k L_k over the outputs that the losses are made of.

    Losses are most often a chain of a few operations on the outputs: then its nodes are called
    one after another, which takes a third of the time of a backward pass. Any other graph takes
    the backward pass.
    """
    node: Any = losses.grad_fn
    gradient: Any = torch.ones_like(losses)
    with torch.no_grad():
        for _ in range(CHAIN):
            if node is None or node is outputs.grad_fn:
                break
            children = [(i, f) for i, (f, _) in enumerate(node.next_functions) if f is not None]
            plain = callable(node) and len(node._input_metadata) == 1
            if len(children) != 1 or not plain:
                break
            (place, child), found = children[0], node(gradient)
            gradient, node = found[place] if isinstance(found, tuple) else found, child
    if node is None or node is not outputs.grad_fn:
        return weighted_gradient(losses, torch.ones_like(losses), [outputs])[0]
    found_gradient: Tensor = gradient
    return found_gradient


CHAIN = 16
"""Operations between outputs and losses beyond which a backward pass is as fast."""


def task_jacobian(
    losses: Tensor, parameters: Sequence[Tensor], *, batched: bool = False
) -> tuple[Tensor, ...]:
    """Return J tensor by tensor: for each parameter the K task gradients, shape (K, numel).

    One backward pass a task, correct for any module; K x M numbers are held. ``batched`` takes
    all K in one pass where every operation of the graph can (by vmap): faster for few rows,
    slower for many.
    """
    eye = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
    if batched and parameters and losses.requires_grad:
        with suppress(RuntimeError), catch_warnings():
            simplefilter("ignore", UserWarning)  # operations without a batching rule
            found = torch.autograd.grad(
                losses,
                list(parameters),
                grad_outputs=eye,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=True,
            )
            return tuple(
                p.new_zeros(len(losses), p.numel()) if g is None else g.reshape(len(losses), -1)
                for p, g in zip(parameters, found, strict=True)
            )
    rows = [weighted_gradient(losses, row, parameters) for row in eye]
    return tuple(torch.stack([row[i].reshape(-1) for row in rows]) for i in range(len(parameters)))


def progress_by_double_backward(
    losses: Tensor, direction: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Tensor:
    """Return J d (K,) on the graph at hand: the gradient over v of <J^T v, d>.

    Exact for any module that can be differentiated twice, at about two backward passes; no further
    forward pass, so nothing random can differ.

    Parameters
    ----------
    losses : tensor of shape (K,), with a graph
    direction : sequence of P tensors, d
    parameters : sequence of P tensors
    """
    if not parameters or not losses.requires_grad:
        return torch.zeros_like(losses)
    v = torch.ones_like(losses, requires_grad=True)
    with torch.enable_grad():
        rows = torch.autograd.grad(
            losses,
            list(parameters),
            grad_outputs=v,
            retain_graph=True,
            create_graph=True,
            allow_unused=True,
        )
        parts = [(g * d).sum() for g, d in zip(rows, direction, strict=True) if g is not None]
        total = torch.stack(parts).sum() if parts else v.sum() * 0
    if not total.requires_grad:
        return torch.zeros_like(losses)
    (progress,) = torch.autograd.grad(total, v, retain_graph=True, allow_unused=True)
    return torch.zeros_like(losses) if progress is None else progress


def gradient_with_graph(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradient of a scalar over each parameter with a graph, to differentiate again."""
    if not parameters or not loss.requires_grad:
        return tuple(torch.zeros_like(p) for p in parameters)
    with torch.enable_grad():
        grads = torch.autograd.grad(loss, list(parameters), create_graph=True, allow_unused=True)
    return tuple(
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)
    )


def hessian_product(
    gradient: Sequence[Tensor], direction: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return H v, H the Hessian of the scalar whose ``gradient_with_graph`` this is.

    One backward pass through the gradient's graph; no H is held.

    Parameters
    ----------
    gradient, direction, parameters : sequences of P tensors of the same shapes
        ``direction`` is v.
    """
    pairs = [(g, v) for g, v in zip(gradient, direction, strict=True) if g.requires_grad]
    if not pairs:  # linear in the parameters
        return tuple(torch.zeros_like(p) for p in parameters)
    found = torch.autograd.grad(
        [g for g, _ in pairs],
        list(parameters),
        grad_outputs=[v for _, v in pairs],
        retain_graph=True,
        allow_unused=True,
    )
    return tuple(
        torch.zeros_like(p) if h is None else h for p, h in zip(parameters, found, strict=True)
    )
