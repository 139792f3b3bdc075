"""The graph: read once a structure, then replayed; cotangents go down it, tangents up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from mtlsk.linear_graph.columns import Columns
from mtlsk.linear_graph.cotangent import Cotangent, down, joined, of_columns
from mtlsk.linear_graph.reading import (
    Layer,
    Unrecognised,
    keeps_shape,
    read_node,
    same_layer,
    widths_of,
)
from mtlsk.linear_graph.workspace import Workspace


@dataclass(slots=True, eq=False)
class _Op:
    """A node: a linear layer, an elementwise function, columns side by side, or a sum."""

    node: Any
    layer: Layer | None
    elementwise: bool
    below: tuple[int, ...]  # places in the order of the nodes that its differentiable inputs are
    widths: tuple[int, ...] = ()  # of what is put side by side
    factor: Tensor | None = None  # of an elementwise function: its derivative (n, q)

    def derivative(self, workspace: Workspace) -> Tensor:
        """Return the derivative of an elementwise function at each element, (n, q)."""
        if self.factor is None:
            like = self.node._input_metadata[0]
            ones = workspace.ones(like.shape, like.dtype, like.device)
            with torch.no_grad():
                gradient = self.node(ones)
            parts = gradient if isinstance(gradient, tuple) else (gradient,)
            self.factor = next(g for g in parts if g is not None)
        return self.factor


class LinearGraph:
    """The linear layers, elementwise functions and sums between parameters and ``outputs``.

    Parameters
    ----------
    outputs : tensor of shape (n, W), with a graph
    workspace : Workspace or None
        Memory to use again; what was made in it in an earlier step is overwritten.

    Raises
    ------
    Unrecognised
        If the graph holds anything else, or a parameter is used in more than one place.

    Attributes
    ----------
    layers : list of Layer
        From the outputs down.
    top_layers : list of (Layer, int)
        Those whose output is a term of the outputs from this column on: its cotangent is theirs.
    signature : tuple of str
        The names of the nodes: equal for two passes of the same structure.
    """

    layers: list[Layer]
    top_layers: list[tuple[Layer, int]]
    signature: tuple[str, ...]

    def __init__(self, outputs: Tensor, workspace: Workspace | None = None) -> None:
        self.workspace = Workspace() if workspace is None else workspace
        if outputs.ndim != 2 or outputs.grad_fn is None:
            raise Unrecognised
        leaves: set[int] = set()
        read: dict[Any, tuple[Layer | None, bool, tuple[Any, ...]]] = {}
        self._n_rows = len(outputs)
        finished: dict[Any, int] = {}  # from the parameters up: a node after all below it
        stack: list[Any] = [outputs.grad_fn]
        while stack:
            node = stack[-1]
            if node not in read:
                read[node] = read_node(node, leaves)
                stack.extend(n for n in read[node][2] if n not in read)
            else:
                stack.pop()
                finished.setdefault(node, len(finished))
        last = len(finished) - 1
        self._ops = []
        on_top = {0: 0}  # terms of the outputs: their first column
        for i, node in enumerate(reversed(finished)):
            layer, elementwise, below = read[node]
            places = tuple(last - finished[n] for n in below)
            op = _Op(node, layer, elementwise, places, widths_of(node))
            self._ops.append(op)
            if i in on_top and layer is None and not elementwise:
                on_top.update(zip(places, (on_top[i] + a for a in starts(op)), strict=True))
        self._settle(on_top)
        self.signature = tuple(node.name() for node in finished)

    def outline(self) -> LinearGraph:
        """Return what :meth:`again` needs, without the nodes and what they keep alive."""
        outline = object.__new__(LinearGraph)
        outline.signature, outline.workspace = self.signature, self.workspace
        outline._on_top, outline._parents = self._on_top, self._parents
        outline._ops = []
        for op in self._ops:
            layer = op.layer
            if layer is not None:
                layer = Layer(layer.weight, layer.bias, layer.matrix, None)
            outline._ops.append(_Op(type(op.node), layer, op.elementwise, op.below, op.widths))
        return outline

    def again(self, outputs: Tensor) -> LinearGraph | None:
        """Return the graph of another pass if this outline fits it, else None.

        It looks for the same kinds of nodes and the same parameters in the same places, which is
        faster than to find them out.
        """
        nodes: list[Any] = [None] * len(self._ops)
        nodes[0] = outputs.grad_fn
        found = object.__new__(LinearGraph)
        found._ops, found.signature, found.workspace = [], self.signature, self.workspace
        found._n_rows = outputs.shape[0]
        for op, node in zip(self._ops, nodes, strict=True):
            if type(node) is not op.node:
                return None
            layer, places = None, iter(op.below)
            children = node.next_functions
            if op.layer is not None:
                layer = same_layer(op.layer, node, children)
                if layer is None:
                    return None
                children = children[-2:-1]
            elif op.widths:
                if widths_of(node) != op.widths:
                    return None
            elif len(children) > 1 and not keeps_shape(node):
                return None
            for child, _ in children:
                if child is None:
                    continue
                j = next(places, None)
                if j is None or nodes[j] not in (None, child):
                    return None
                nodes[j] = child
            if next(places, None) is not None:
                return None
            found._ops.append(_Op(node, layer, op.elementwise, op.below, op.widths))
        found._settle(self._on_top, self._parents)
        return found

    def _settle(self, on_top: dict[int, int], parents: Counter[int] | None = None) -> None:
        self._on_top = on_top
        self.layers = [op.layer for op in self._ops if op.layer is not None]
        self._parents = parents or Counter(j for op in self._ops for j in op.below)
        self.top_layers = [
            (op.layer, on_top[i])
            for i, op in enumerate(self._ops)
            if op.layer is not None and i in on_top and self._parents[i] < 2
        ]

    def rows(self, chosen: slice) -> LinearGraph:
        """Return the graph of some of the rows: they do not mix in it."""
        part = object.__new__(LinearGraph)
        part.signature, part._ops, part.workspace = self.signature, [], self.workspace
        for op in self._ops:
            layer = op.layer
            if layer is not None:
                a = None if layer.input is None else layer.input[chosen]
                layer = Layer(layer.weight, layer.bias, layer.matrix, a)
            factor = op.derivative(self.workspace)[chosen] if op.elementwise else None
            part._ops.append(_Op(op.node, layer, op.elementwise, op.below, op.widths, factor))
        part._n_rows = len(range(*chosen.indices(self._n_rows)))
        part._settle(self._on_top)
        return part

    def cotangents(
        self,
        top: Tensor,
        columns: Columns | None = None,
        n_layers: int | None = None,
        name: str = "",
    ) -> list[Cotangent]:
        """Return the cotangents of each layer's output Z, in the order of ``layers``.

        Parameters
        ----------
        top : tensor of shape (n, R, W), or (n, W)
            R cotangents of the outputs; or, with ``columns``, K of them in one matrix: task k's
            is zero outside its own columns.
        columns : Columns of K tasks
        n_layers : int or None
            How many of the layers; None for all.
        name : str
            What is returned stays as it is until the next call with the same name.
        """
        values: list[Cotangent | None] = [None] * len(self._ops)
        values[0] = Cotangent(top) if columns is None else Cotangent(top, first=0)
        found: list[Cotangent] = []
        wanted = len(self.layers) if n_layers is None else n_layers

        def add(index: int, c: Cotangent) -> None:
            there = values[index]
            values[index] = c if there is None else joined(there, c, columns)

        for i, op in enumerate(self._ops):
            c = values[i]
            values[i] = None
            assert c is not None  # every node is below the outputs
            if op.layer is not None:
                found.append(c)
                if len(found) == wanted:
                    break
                if op.below:
                    key = (name, i, len(self.layers))
                    add(op.below[0], down(c, op.layer, columns, self.workspace, key))
            elif op.elementwise:
                factor = op.derivative(self.workspace)
                factor = factor if c.value.ndim == 2 else factor.unsqueeze(1)
                value = c.value.mul_(factor) if c.own else c.value * factor
                add(op.below[0], Cotangent(value, c.first, c.task, own=True))
            elif op.widths:
                for j, a, width in zip(op.below, starts(op), op.widths, strict=True):
                    add(j, of_columns(c, a, a + width, columns))
            else:
                for j in op.below:
                    add(j, Cotangent(c.value, c.first, c.task))
        return found

    def tangent(self, directions: Mapping[int, Tensor]) -> Tensor | None:
        """Return d outputs (n, W) when each parameter p moves by ``directions[id(p)]``.

        None where none of these parameters is in the graph.
        """
        values: list[Tensor | None] = [None] * len(self._ops)
        for i in range(len(self._ops) - 1, -1, -1):
            op = self._ops[i]
            below = [t for j in op.below if (t := values[j]) is not None]
            if op.layer is not None:
                values[i] = _up(op.layer, below[0] if below else None, directions, self._n_rows)
            elif op.elementwise and below:
                # what a layer below made, nothing else holds
                fresh = self._ops[op.below[0]].layer is not None and self._parents[op.below[0]] == 1
                factor = op.derivative(self.workspace)
                whole = fresh and below[0].shape == factor.shape
                values[i] = below[0].mul_(factor) if whole else below[0] * factor
            elif op.widths and below:
                zeros, n = below[0].new_zeros(()), self._n_rows
                parts = zip((values[j] for j in op.below), op.widths, strict=True)
                values[i] = torch.cat(
                    [(zeros if t is None else t).expand(n, w) for t, w in parts], dim=1
                )
            elif below:
                values[i] = sum(below[1:], start=below[0])
        return values[0]


def _up(
    layer: Layer, below: Tensor | None, directions: Mapping[int, Tensor], n_rows: int
) -> Tensor | None:
    """Return the tangent (n, q) of a layer's output: T W^T + A dW^T + db."""
    parts = []
    if below is not None and layer.matrix is not None:
        parts.append((below, layer.matrix))
    if layer.weight is not None and layer.input is not None and id(layer.weight) in directions:
        parts.append((layer.input, directions[id(layer.weight)]))
    db = None if layer.bias is None else directions.get(id(layer.bias))
    out: Tensor | None = None
    for i, (a, w) in enumerate(parts):
        if i:
            assert out is not None
            out.addmm_(a, w.T)
        else:
            out = a @ w.T if db is None else torch.addmm(db, a, w.T)
    return db.repeat(n_rows, 1) if out is None and db is not None else out


def starts(op: _Op) -> list[int]:
    """Return the first column of each input in the output: 0 but where they stand side by side."""
    if not op.widths:
        return [0] * len(op.below)
    return [0, *accumulate(op.widths[:-1])]
