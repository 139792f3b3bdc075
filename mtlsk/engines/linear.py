"""Task gradients of nets made of linear layers, by hand: no backward pass through the net.

For a layer Z = A W^T + b task k's gradient is D_k^T A, D_k = dL_k/dZ. All D_k go down the graph
together as one tensor (n, K, q), one matrix product a layer; J is never held whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from mtlsk.autodiff import gradient_over_outputs, weighted_gradient
from mtlsk.engines.base import Forward, TaskGradients
from mtlsk.linear_graph import Columns, Cotangent, Layer, LinearGraph, Workspace

BLOCK = 1 << 13
"""Columns of J in one product: float32 sums of 2 M columns would lose 1e-4."""

FEW = 1 << 17
"""Numbers that are sooner made float64 than cut into blocks."""

HELD = 1 << 22
"""Numbers of J held at a time."""


def gram_of_rows(rows: Tensor) -> Tensor:
    """Return R R^T in float64 of R (K, m), summed over blocks of columns in R's own precision."""
    k, m = rows.shape
    if m <= BLOCK:
        return (rows @ rows.T).double()
    if k * m <= FEW:
        wide = rows.double()
        return wide @ wide.T
    whole = m - m % BLOCK
    blocks = rows[:, :whole].reshape(k, -1, BLOCK).transpose(0, 1)
    total = (blocks @ blocks.transpose(1, 2)).double().sum(0)
    if whole < m:
        total += (rows[:, whole:] @ rows[:, whole:].T).double()
    return total


def layer_gramian(
    d: Tensor, a: Tensor | None, bias: bool, workspace: Workspace | None = None
) -> Tensor:
    """Return the Gramian (K, K), float64, of one layer's task gradients.

    With B = 1 if the bias counts and 0 otherwise,
    G_kl = <D_k^T A, D_l^T A> + B <D_k^T 1, D_l^T 1> = <D_k, (A A^T + B) D_l>, by the cheaper side.

    Parameters
    ----------
    d : tensor of shape (n, K, q)
    a : tensor of shape (n, p), or None where the weight does not count
    bias : bool
    workspace : Workspace or None
    """
    workspace = workspace or Workspace()
    n, k, q = d.shape
    total = torch.zeros((k, k), dtype=torch.float64, device=d.device)
    if a is None:
        return gram_of_rows(d.sum(0)) if bias else total
    p = a.shape[1]
    if n * n * (p + k * q + k * k * q / n) < n * p * q * k + k * k * q * p:
        gram = a @ a.T
        if bias:
            gram += 1
        out = workspace.empty("layer", (n, k * q), d)
        other = torch.mm(gram, d.reshape(n, k * q), out=out).view(n, k, q)
        products = torch.matmul(d, other.transpose(1, 2))  # row by row (n, K, K)
        return products.double().sum(0)
    step = max(1, HELD // (k * p))
    for first in range(0, q, step):
        part = d[:, :, first : first + step].reshape(n, -1)
        out = workspace.empty("layer", (part.shape[1], p), d)
        total += gram_of_rows(torch.mm(part.T, a, out=out).view(k, -1))
    if bias:
        total += gram_of_rows(d.sum(0))
    return total


class LinearGradients(TaskGradients):
    """The task gradients of a net whose graph is a :class:`LinearGraph`.

    Parameters
    ----------
    losses : tensor of shape (K,)
    shared : sequence of P tensors
    forward : Forward
    graph : LinearGraph of ``forward.outputs``
    rows : slice or None
        Rows from which the Gramian is estimated; None takes all.
    """

    def __init__(
        self,
        losses: Tensor,
        shared: Sequence[Tensor],
        forward: Forward,
        graph: LinearGraph,
        rows: slice | None = None,
    ) -> None:
        self.losses = losses
        self.shared = tuple(shared)
        self.forward = forward
        self.graph = graph
        self.columns: Columns = forward.columns
        self.estimated_from = rows
        self._shared_ids = {id(p) for p in shared}

    @cached_property
    def top(self) -> Tensor:
        """The gradient of sum_k L_k over the outputs, (n, W): column by column its task's own."""
        return gradient_over_outputs(self.losses, self.forward.outputs)

    @cached_property
    def cotangents(self) -> list[Cotangent]:
        """D of each layer for all tasks, from the rows that the Gramian looks at."""
        rows = self.estimated_from
        if rows is None:
            return self.graph.cotangents(self.top, self.columns, name="tasks")
        part = self.graph.rows(rows)
        self._part = part
        top = self.top[rows]
        return part.cotangents(top * (len(self.top) / len(top)), self.columns, name="tasks")

    def _layers(self) -> list[Layer]:
        """Return the layers that ``cotangents`` belong to."""
        _ = self.cotangents
        return self.graph.layers if self.estimated_from is None else self._part.layers

    def _counts(self, layer: Layer) -> tuple[Tensor | None, bool]:
        """Return a layer's input, None unless its weight is shared, and whether its bias is."""
        weight, bias = (
            p is not None and id(p) in self._shared_ids for p in (layer.weight, layer.bias)
        )
        return (layer.input if weight else None), bias

    @cached_property
    def blocks(self) -> dict[int, Tensor]:
        """J of the shared parameters of layers where it is smaller than D is, (K, numel) by id."""
        found: dict[int, Tensor] = {}
        for i, (c, layer) in enumerate(zip(self.cotangents, self._layers(), strict=True)):
            a, bias = self._counts(layer)
            if c.value.ndim == 2 or a is None or a.shape[1] > a.shape[0]:
                continue
            d = c.value.flatten(1)
            out = self.graph.workspace.empty(("J", i), (d.shape[1], a.shape[1]), d)
            found[id(layer.weight)] = torch.mm(d.T, a, out=out).view(c.value.shape[1], -1)
            if bias:
                found[id(layer.bias)] = c.value.sum(0)
        return found

    @cached_property
    def _rows(self) -> Tensor:
        """The blocks side by side, (K, m)."""
        return torch.cat(list(self.blocks.values()), dim=1)

    @cached_property
    def _gramian(self) -> Tensor:
        k = len(self.losses)
        if self.blocks:
            total = gram_of_rows(self._rows)
        else:
            total = torch.zeros((k, k), dtype=torch.float64, device=self.losses.device)
        for c, layer in zip(self.cotangents, self._layers(), strict=True):
            a, bias = self._counts(layer)
            if (a is not None or bias) and id(layer.weight) not in self.blocks:
                total += self._layer_gramian(c, a, bias)
        return total

    def _layer_gramian(self, c: Cotangent, a: Tensor | None, bias: bool) -> Tensor:
        if c.value.ndim == 3:
            return layer_gramian(c.value, a, bias, self.graph.workspace)
        # tasks have columns or layers of their own: their gradients are orthogonal
        squares = own_squares(c.value, a, bias)
        k = len(self.losses)
        if c.task >= 0:
            found = torch.zeros(k, dtype=torch.float64, device=squares.device)
            found[c.task] = squares.sum()
            return torch.diag(found)
        whole = squares.new_zeros(self.columns.width)
        whole[c.first : c.first + len(squares)] = squares
        return torch.diag(self.columns.sums(whole))

    def gramian(self) -> Tensor:
        """Return G = J J^T."""
        return self._gramian

    def block_norms(self) -> Tensor:
        """Return the norm of each task's gradient in each parameter tensor."""
        k = len(self.losses)
        found: dict[int, Tensor] = {}
        for c, layer in zip(self.cotangents, self._layers(), strict=True):
            for p, a, bias in ((layer.weight, layer.input, False), (layer.bias, None, True)):
                if p is None or id(p) not in self._shared_ids:
                    continue
                found[id(p)] = self._layer_gramian(c, a, bias).diagonal().clamp_min(0).sqrt()
        zero = torch.zeros(k, dtype=torch.float64, device=self.losses.device)
        rows = [found.get(id(p), zero) for p in self.shared]
        return torch.stack(rows) if rows else zero.new_zeros((0, k))

    def combine(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Return J^T w from all rows."""
        if weights.ndim == 1:
            if self.estimated_from is None and "_gramian" in vars(self):
                found = self._from_blocks(weights)
                if all(id(p) in found for p in self.shared):
                    return tuple(found[id(p)] for p in self.shared)
            return self._gradient(self.shared, weights)
        found = self._from_cotangents(weights)
        return tuple(
            found[id(p)] if id(p) in found else self._gradient([p], w)[0]
            for p, w in zip(self.shared, weights, strict=True)
        )

    def _from_cotangents(self, weights: Tensor) -> dict[int, Tensor]:
        """Return J^T w for weights (P, K) by parameter id, where all tasks' cotangents are held."""
        found: dict[int, Tensor] = {}
        if self.estimated_from is not None or "cotangents" not in vars(self):
            return found
        rows = {id(p): w for p, w in zip(self.shared, weights.to(self.top), strict=True)}
        for c, layer in zip(self.cotangents, self.graph.layers, strict=True):
            if c.value.ndim != 3 or c.value.shape[1] != len(self.losses):
                continue
            if layer.weight is not None and layer.input is not None and id(layer.weight) in rows:
                found[id(layer.weight)] = (rows[id(layer.weight)] @ c.value).T @ layer.input
            if layer.bias is not None and id(layer.bias) in rows:
                found[id(layer.bias)] = rows[id(layer.bias)] @ c.value.sum(0)
        return found

    def _from_blocks(self, weights: Tensor) -> dict[int, Tensor]:
        """Return J^T w by parameter id where J is held."""
        if not self.blocks:
            return {}
        shapes = {id(p): p.shape for p in self.shared}
        sizes = [block.shape[1] for block in self.blocks.values()]
        parts = torch.split_with_sizes(weights.to(self._rows) @ self._rows, sizes)
        return {i: part.view(shapes[i]) for i, part in zip(self.blocks, parts, strict=True)}

    def combine_own(self, weights: Tensor, own: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the gradient of w'L over the layers on top, whose cotangents are at hand."""
        top = self.top * self.columns.of(weights.to(self.top))
        found: dict[int, Tensor] = {}
        for layer, first in self.graph.top_layers:
            add_gradient(found, layer, top, first)
        if all(id(p) in found for p in own):
            return tuple(found[id(p)] for p in own)
        known = {id(p) for layer in self.graph.layers for p in (layer.weight, layer.bias)}
        below = [p for p in own if id(p) in known and id(p) not in found]
        beside = [p for p in own if id(p) not in known]  # in the losses, or nowhere
        pairs = [
            *zip(below, self._gradient(below, weights) if below else (), strict=True),
            *zip(beside, weighted_gradient(self.losses, weights, beside), strict=True),
        ]
        found |= {id(p): gradient for p, gradient in pairs}
        return tuple(found[id(p)] for p in own)

    def _gradient(self, parameters: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of w'L over some parameters of the graph."""
        top = self.top * self.columns.of(weights.to(self.top))
        wanted = {id(p) for p in parameters}
        found: dict[int, Tensor] = {}
        for c, layer in zip(
            self.graph.cotangents(top.unsqueeze(1)), self.graph.layers, strict=True
        ):
            if id(layer.weight) in wanted or id(layer.bias) in wanted:
                add_gradient(found, layer, c.value.squeeze(1))
        return tuple(found[id(p)] if id(p) in found else torch.zeros_like(p) for p in parameters)


def add_gradient(found: dict[int, Tensor], layer: Layer, d: Tensor, first: int = 0) -> None:
    """Put D^T A and D^T 1 of a layer into ``found`` under their parameters' ids.

    D (n, q) are the columns of ``d`` from ``first`` on, as many as the layer has outputs.
    """
    leaf = layer.bias if layer.weight is None else layer.weight
    if leaf is None:
        return
    if d.shape[1] != leaf.shape[0]:
        d = d[:, first : first + leaf.shape[0]]
    if layer.weight is not None and layer.input is not None:
        found[id(layer.weight)] = d.T @ layer.input
    if layer.bias is not None:
        found[id(layer.bias)] = d.sum(0)


def own_squares(d: Tensor, a: Tensor | None, bias: bool) -> Tensor:
    """Return the squared gradient norm (q,), float64, of each output of a layer."""
    squares = torch.zeros(d.shape[1], dtype=torch.float64, device=d.device)
    if a is not None:
        squares += (d.T @ a).double().square().sum(1)
    if bias:
        squares += d.sum(0).double().square()
    return squares
