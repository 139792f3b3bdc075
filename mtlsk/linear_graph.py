"""Nets made of linear layers, read off their autograd graph and differentiated by hand.

From the outputs of a forward pass down, the graph is made of linear layers, elementwise functions
and sums: then cotangents of many tasks go down it together, one matrix product a layer, and
tangents go up it. What is read is the graph of this very pass, not the module: a layer used
twice, a tied weight or a functional call cannot be mistaken for something else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ELEMENTWISE = frozenset(
    f"{name}Backward{version}"
    for name in (
        *("Relu", "LeakyRelu", "Elu", "Celu", "Gelu", "Silu", "Mish", "Softplus", "Sigmoid"),
        *("Tanh", "Hardtanh", "Hardswish", "Hardsigmoid", "LogSigmoid", "Sin", "Cos", "Exp"),
        *("Neg", "NativeDropout", "Mul"),
    )
    for version in (0, 1)
)
"""Nodes whose output i depends on input i of their one differentiable input only."""


class Columns:
    """Which columns of the outputs (n, W) belong to each of K tasks.

    Parameters
    ----------
    slices : K slices
    width : int
        W.

    Attributes
    ----------
    single : bool
        Whether task k has column k and no other, for all k.
    """

    def __init__(self, slices: Sequence[slice], width: int) -> None:
        self.slices = tuple(slices)
        self.width = width
        ones = all(c.stop - c.start == 1 for c in self.slices)
        self.first = [c.start for c in self.slices] if ones else None
        self.single = self.first == list(range(width))
        owner = [0] * width  # a column of no task has no gradient
        for k, c in enumerate(self.slices):
            owner[c] = [k] * (c.stop - c.start)
        self.owner = torch.tensor(owner)

    def __len__(self) -> int:
        return len(self.slices)

    def of(self, values: Tensor) -> Tensor:
        """Return for each column its task's entry of ``values`` (K,) or (R, K): (W,) or (R, W)."""
        if self.single:
            return values
        if self.owner.device != values.device:
            self.owner = self.owner.to(values.device)
        return values[..., self.owner]

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over each task's columns of ``values`` (W,), shape (K,)."""
        if self.single:
            return values
        if self.owner.device != values.device:
            self.owner = self.owner.to(values.device)
        return values.new_zeros(len(self)).index_add(0, self.owner, values)


FRESH = 1 << 15
"""Numbers below which memory comes cheaper from the allocator than from a workspace."""


class Workspace:
    """Memory that is used again in every step: fresh pages would cost as much as the products."""

    def __init__(self) -> None:
        self._flat: dict[Hashable, Tensor] = {}
        self._shaped: dict[Hashable, Tensor] = {}

    def empty(self, key: Hashable, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return a tensor of this shape, of the dtype and device of ``like``, with any values.

        What was handed out under the same key before is overwritten.
        """
        numel = math.prod(shape)
        if numel < FRESH:
            return like.new_empty(shape)
        last = self._shaped.get(key)
        if last is not None and last.dtype == like.dtype and last.device == like.device:
            if last.shape == shape:
                return last
            if self._flat[key].numel() >= numel:
                last = self._shaped[key] = self._flat[key][:numel].view(shape)
                return last
        flat = self._flat[key] = torch.empty(numel, dtype=like.dtype, device=like.device)
        last = self._shaped[key] = flat.view(shape)
        return last

    def ones(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return ones, not to be written to."""
        key = ("ones", tuple(shape), dtype, device)
        if key not in self._flat:
            self._flat[key] = torch.ones(tuple(shape), dtype=dtype, device=device)
        return self._flat[key]


class Unrecognised(Exception):  # noqa: N818 (a signal, not an error)
    """The graph holds something else than linear layers, elementwise functions and sums."""


@dataclass(slots=True, eq=False)
class Layer:
    """One linear map Z = A W^T + b of the graph.

    Attributes
    ----------
    weight, bias : leaf tensors (q, p) and (q,), or None where they need no gradient
    matrix : tensor of shape (q, p), or None if nothing below needs a gradient
        The values of W.
    input : tensor of shape (n, p), or None if the weight needs no gradient
        A.
    """

    weight: Tensor | None
    bias: Tensor | None
    matrix: Tensor | None
    input: Tensor | None


@dataclass(slots=True, eq=False)
class _Op:
    """A node of the graph: a linear layer, an elementwise function, or a sum (neither)."""

    node: Any
    layer: Layer | None
    elementwise: bool
    below: tuple[int, ...]  # places in the order of the nodes that its differentiable inputs are
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
    top_layers : list of Layer
        Those whose output is a term of the outputs: its cotangent is theirs.
    signature : tuple of str
        The names of the nodes: equal for two passes of the same structure.
    """

    layers: list[Layer]
    top_layers: list[Layer]
    signature: tuple[str, ...]

    def __init__(self, outputs: Tensor, workspace: Workspace | None = None) -> None:
        self.workspace = Workspace() if workspace is None else workspace
        if outputs.ndim != 2 or outputs.grad_fn is None:
            raise Unrecognised
        leaves: set[int] = set()
        read: dict[Any, tuple[Layer | None, bool, tuple[Any, ...]]] = {}
        finished: dict[Any, int] = {}  # from the parameters up: a node after all below it
        stack: list[Any] = [outputs.grad_fn]
        while stack:
            node = stack[-1]
            if node not in read:
                read[node] = _read(node, leaves)
                stack.extend(n for n in read[node][2] if n not in read)
            else:
                stack.pop()
                finished.setdefault(node, len(finished))
        last = len(finished) - 1
        self._ops = []
        on_top = {0}
        for i, node in enumerate(reversed(finished)):
            layer, elementwise, below = read[node]
            places = tuple(last - finished[n] for n in below)
            self._ops.append(_Op(node, layer, elementwise, places))
            if i in on_top and layer is None and not elementwise:
                on_top.update(places)
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
            outline._ops.append(_Op(type(op.node), layer, op.elementwise, op.below))
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
        for op, node in zip(self._ops, nodes, strict=True):
            if type(node) is not op.node:
                return None
            layer, places = None, iter(op.below)
            children = node.next_functions
            if op.layer is not None:
                layer = _same_layer(op.layer, node, children)
                if layer is None:
                    return None
                children = children[-2:-1]
            elif len(children) > 1 and not _keeps_shape(node):
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
            found._ops.append(_Op(node, layer, op.elementwise, op.below))
        found._settle(self._on_top, self._parents)
        return found

    def _settle(self, on_top: set[int], parents: Counter[int] | None = None) -> None:
        self._on_top = on_top
        self.layers = [op.layer for op in self._ops if op.layer is not None]
        self._parents = parents or Counter(j for op in self._ops for j in op.below)
        self.top_layers = [
            op.layer
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
            part._ops.append(_Op(op.node, layer, op.elementwise, op.below, factor))
        part._settle(self._on_top)
        return part

    def cotangents(
        self,
        top: Tensor,
        columns: Columns | None = None,
        n_layers: int | None = None,
        name: str = "",
    ) -> list[Tensor]:
        """Return the cotangent of each layer's output Z, in the order of ``layers``.

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

        Returns
        -------
        tensors (n, R, q); (n, W) like ``top`` for layers with nothing linear above them
        """
        values: list[Tensor | None] = [None] * len(self._ops)
        values[0] = top
        found: list[Tensor] = []
        wanted = len(self.layers) if n_layers is None else n_layers
        own = [False] * len(self._ops)  # whether nothing else holds the value: it may be changed

        def add(index: int, value: Tensor, fresh: bool) -> None:
            there = values[index]
            if there is None:
                values[index], own[index] = value, fresh
                return
            if there.ndim != value.ndim:
                there, value = _apart(there, columns), _apart(value, columns)
            values[index], own[index] = there + value, True

        for i, op in enumerate(self._ops):
            d = values[i]
            values[i] = None
            assert d is not None  # every node is below the outputs
            if op.layer is not None:
                found.append(d)
                if len(found) == wanted:
                    break
                for j in op.below:
                    key = (name, i, len(self.layers))
                    add(j, _down(d, op.layer, columns, self.workspace, key), True)
            elif op.elementwise:
                factor = op.derivative(self.workspace)
                factor = factor if d.ndim == 2 else factor.unsqueeze(1)
                add(op.below[0], d.mul_(factor) if own[i] else d * factor, True)
            else:
                for j in op.below:
                    add(j, d, len(op.below) == 1 and own[i])
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
                values[i] = _up(op.layer, below[0] if below else None, directions)
            elif op.elementwise and below:
                # what a layer below made, nothing else holds
                fresh = self._ops[op.below[0]].layer is not None and self._parents[op.below[0]] == 1
                factor = op.derivative(self.workspace)
                whole = fresh and below[0].shape == factor.shape
                values[i] = below[0].mul_(factor) if whole else below[0] * factor
            elif below:
                values[i] = sum(below[1:], start=below[0])
        return values[0]


def _read(node: Any, leaves: set[int]) -> tuple[Layer | None, bool, tuple[Any, ...]]:
    """Return what a node is, (layer, whether elementwise), and the nodes below it."""
    name = node.name()
    inputs = [f for f, _ in node.next_functions]
    if name == "AddmmBackward0":
        if node._saved_alpha != 1 or node._saved_beta != 1:
            raise Unrecognised
        bias, below, weight = inputs
        layer = _layer(weight, bias, below, node, "mat1", leaves)
        return layer, False, () if below is None else (below,)
    if name == "MmBackward0":
        below, weight = inputs
        layer = _layer(weight, None, below, node, "self", leaves)
        return layer, False, () if below is None else (below,)
    kept = tuple(f for f in inputs if f is not None)
    elementwise = name in ELEMENTWISE and len(kept) == 1
    if not elementwise and name != "AddBackward0":
        raise Unrecognised
    if any(f.name() == LEAF for f in kept):
        raise Unrecognised
    if len(inputs) > 1 and not _keeps_shape(node):
        raise Unrecognised
    return None, elementwise, kept


def _keeps_shape(node: Any) -> bool:
    """Say whether all inputs have the node's shape and enter with factor 1: no broadcasting."""
    shape = node._input_metadata[0].shape
    same = all(f._input_metadata[0].shape == shape for f, _ in node.next_functions if f is not None)
    return same and getattr(node, "_saved_alpha", 1) == 1


def _same_layer(old: Layer, node: Any, children: Any) -> Layer | None:
    """Return the layer of ``node`` if it holds the parameters of another pass's layer."""
    weight, bias = children[-1][0], children[0][0] if len(children) == 3 else None
    if (weight is None) != (old.weight is None) or (bias is None) != (old.bias is None):
        return None
    if len(children) == 3 and (node._saved_alpha != 1 or node._saved_beta != 1):
        return None
    for found, parameter in ((weight, old.weight), (bias, old.bias)):
        if found is None:
            continue
        leaf = found.next_functions[0][0] if found is weight else found
        variable = getattr(leaf, "variable", None)
        if variable is None or parameter is None or variable is not parameter:
            return None
        if parameter._backward_hooks:
            return None
    if (children[-2][0] is None) != (old.matrix is None):
        return None
    matrix = old.matrix
    if matrix is not None and old.weight is None:
        matrix = node._saved_mat2.T
    elif old.weight is not None and matrix is not None and moved(matrix, old.weight):
        matrix = old.weight.detach()
    a = None
    if old.weight is not None:
        a = (node._saved_mat1 if len(children) == 3 else node._saved_self).detach()
    return Layer(old.weight, old.bias, matrix, a)


LEAF = "torch::autograd::AccumulateGrad"


def _layer(weight: Any, bias: Any, below: Any, node: Any, saved: str, leaves: set[int]) -> Layer:
    """Return the layer of a matrix product whose second factor is a transposed leaf."""
    if weight is not None:
        if weight.name() != "TBackward0":
            raise Unrecognised
        weight = _leaf(weight.next_functions[0][0], leaves)
    bias = None if bias is None else _leaf(bias, leaves)
    matrix = None
    if below is not None:
        matrix = node._saved_mat2.T if weight is None else weight.detach()
    a = None if weight is None else getattr(node, f"_saved_{saved}").detach()
    return Layer(weight, bias, matrix, a)


def moved(values: Tensor, parameter: Tensor) -> bool:
    """Say whether a parameter's values are in other memory by now than those seen before."""
    return values.data_ptr() != parameter.data_ptr()


def _leaf(node: Any, leaves: set[int]) -> Tensor:
    """Return the parameter of a leaf's node, which must be new and without hooks."""
    if node.name() != LEAF:
        raise Unrecognised
    variable: Tensor = node.variable
    if id(variable) in leaves or variable._backward_hooks:
        raise Unrecognised
    leaves.add(id(variable))
    return variable


def _apart(d: Tensor, columns: Columns | None) -> Tensor:
    """Return K cotangents (n, K, W) from those that share one matrix (n, W)."""
    if d.ndim == 3 or columns is None:
        return d
    full = d.new_zeros(len(d), len(columns), d.shape[1])
    for k, c in enumerate(columns.slices):
        full[:, k, c] = d[:, c]
    return full


def _down(
    d: Tensor, layer: Layer, columns: Columns | None, workspace: Workspace, key: Hashable
) -> Tensor:
    """Return the cotangents (n, R, p) of a layer's input from those of its output."""
    w = layer.matrix
    assert w is not None
    n, p = len(d), w.shape[1]
    if d.ndim == 3:
        out = workspace.empty(key, (n * d.shape[1], p), d)
        return torch.mm(d.reshape(-1, d.shape[2]), w, out=out).view(n, -1, p)
    assert columns is not None
    if columns.first is None:
        return torch.stack([d[:, c] @ w[c] for c in columns.slices], dim=1)
    if not columns.single:
        d, w = d[:, columns.first], w[columns.first]
    out = workspace.empty(key, (n, len(columns), p), d)
    return torch.mul(d.unsqueeze(2), w, out=out)  # (n, K, 1) (K, p)


def _up(layer: Layer, below: Tensor | None, directions: Mapping[int, Tensor]) -> Tensor | None:
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
    return db.unsqueeze(0) if out is None and db is not None else out
