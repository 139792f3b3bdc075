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
from itertools import accumulate
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

    def between(self, first: int, end: int) -> list[int]:
        """Return the tasks whose columns are among those from ``first`` to before ``end``."""
        return [k for k, c in enumerate(self.slices) if first <= c.start and c.stop <= end]

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
class Cotangent:
    """Cotangents of the tasks at one place of the graph, as compactly as they allow.

    Attributes
    ----------
    value : tensor
        (n, R, q), one a task (or R of any kind); (n, q) where only the columns ``first`` to
        ``first + q`` of the outputs are below, each its own task's; (n, q) of the one ``task``.
    first, task : int
        -1 where they do not apply.
    own : bool
        Whether nothing else holds the value: it may be changed.
    """

    value: Tensor
    first: int = -1
    task: int = -1
    own: bool = False


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
            op = _Op(node, layer, elementwise, places, _widths(node))
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
                layer = _same_layer(op.layer, node, children)
                if layer is None:
                    return None
                children = children[-2:-1]
            elif op.widths:
                if _widths(node) != op.widths:
                    return None
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
            values[index] = c if there is None else _joined(there, c, columns)

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
                    add(op.below[0], _down(c, op.layer, columns, self.workspace, key))
            elif op.elementwise:
                factor = op.derivative(self.workspace)
                factor = factor if c.value.ndim == 2 else factor.unsqueeze(1)
                value = c.value.mul_(factor) if c.own else c.value * factor
                add(op.below[0], Cotangent(value, c.first, c.task, own=True))
            elif op.widths:
                for j, a, width in zip(op.below, starts(op), op.widths, strict=True):
                    add(j, _of_columns(c, a, a + width, columns))
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
                values[i] = _up(op.layer, below[0] if below else None, directions)
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


def read_node(node: Any, leaves: set[int]) -> tuple[Layer | None, bool, tuple[Any, ...]]:
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
    if not elementwise and name not in ("AddBackward0", "CatBackward0"):
        raise Unrecognised
    if any(f.name() == LEAF for f in kept):
        raise Unrecognised
    if name == "CatBackward0":
        if node._saved_dim not in (1, LAST) or len(kept) < len(inputs):
            raise Unrecognised
        return None, False, kept
    if len(inputs) > 1 and not _keeps_shape(node):
        raise Unrecognised
    return None, elementwise, kept


LAST = (1 << 64) - 1
"""The dimension -1 as a node keeps it."""


def _widths(node: Any) -> tuple[int, ...]:
    """Return the widths of what a node puts side by side, () for any other node."""
    if node.name() != "CatBackward0":
        return ()
    return tuple(f._input_metadata[0].shape[1] for f, _ in node.next_functions)


def starts(op: _Op) -> list[int]:
    """Return the first column of each input in the output: 0 but where they stand side by side."""
    if not op.widths:
        return [0] * len(op.below)
    return [0, *accumulate(op.widths[:-1])]


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


def _of_columns(c: Cotangent, first: int, end: int, columns: Columns | None) -> Cotangent:
    """Return the cotangents of some columns of a place; of one task, if they are one task's."""
    value = c.value[..., first:end]
    if c.first < 0 or columns is None:
        return Cotangent(value, task=c.task)
    there = columns.between(c.first + first, c.first + end)
    if len(there) == 1:
        return Cotangent(value, task=there[0])
    return Cotangent(value, first=c.first + first)


def _joined(a: Cotangent, b: Cotangent, columns: Columns | None) -> Cotangent:
    """Return the sum of two cotangents of one place."""
    if (a.first, a.task) == (b.first, b.task):
        value = a.value.add_(b.value) if a.own else a.value + b.value
        return Cotangent(value, a.first, a.task, own=True)
    assert columns is not None
    if a.value.ndim == 2:
        a, b = (b, a) if b.value.ndim == 3 else (a, b)
    if a.value.ndim == 2 or not a.own:
        n, q = a.value.shape[0], a.value.shape[-1]
        whole = Cotangent(a.value.new_zeros(n, len(columns), q), own=True)
        _put(a, whole.value, columns)
        a = whole
    _put(b, a.value, columns)
    return a


def _put(c: Cotangent, whole: Tensor, columns: Columns) -> None:
    """Add cotangents to those of all tasks, (n, K, q)."""
    if c.task >= 0:
        whole[:, c.task] += c.value
    elif c.first >= 0:
        for k in columns.between(c.first, c.first + c.value.shape[1]):
            s = columns.slices[k]
            s = slice(s.start - c.first, s.stop - c.first)
            whole[:, k, s] += c.value[:, s]
    else:
        whole += c.value


def _down(
    c: Cotangent, layer: Layer, columns: Columns | None, workspace: Workspace, key: Hashable
) -> Cotangent:
    """Return the cotangents of a layer's input from those of its output."""
    w, d = layer.matrix, c.value
    assert w is not None
    n, p = d.shape[0], w.shape[1]
    if d.ndim == 3:
        out = workspace.empty(key, (n * d.shape[1], p), d)
        value = torch.mm(d.reshape(-1, d.shape[2]), w, out=out).view(n, -1, p)
        return Cotangent(value, own=True)
    if c.task >= 0:
        return Cotangent(d @ w, task=c.task, own=True)
    assert columns is not None
    out = workspace.empty(key, (n, len(columns), p), d)
    if columns.single and c.first == 0 and d.shape[1] == columns.width:
        torch.mul(d.unsqueeze(2), w, out=out)  # (n, K, 1) (K, p)
    else:
        there = columns.between(c.first, c.first + d.shape[1])
        if len(there) < len(columns):
            out.zero_()
        for k in there:
            s = slice(columns.slices[k].start - c.first, columns.slices[k].stop - c.first)
            out[:, k] = d[:, s] @ w[s]
    return Cotangent(out, own=True)


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
