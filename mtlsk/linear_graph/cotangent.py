"""Cotangents of many tasks on their way down a graph, as compactly as they allow."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlsk.linear_graph.columns import Columns
from mtlsk.linear_graph.reading import Layer
from mtlsk.linear_graph.workspace import Workspace


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


def of_columns(c: Cotangent, first: int, end: int, columns: Columns | None) -> Cotangent:
    """Return the cotangents of some columns of a place; of one task, if they are one task's."""
    value = c.value[..., first:end]
    if c.first < 0 or columns is None:
        return Cotangent(value, task=c.task)
    there = columns.between(c.first + first, c.first + end)
    if len(there) == 1:
        return Cotangent(value, task=there[0][0])
    return Cotangent(value, first=c.first + first)


def joined(a: Cotangent, b: Cotangent, columns: Columns | None) -> Cotangent:
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
        for k, s in columns.between(c.first, c.first + c.value.shape[1]):
            whole[:, k, s] += c.value[:, s]
    else:
        whole += c.value


def down(
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
        for k, s in there:
            out[:, k] = d[:, s] @ w[s]
    return Cotangent(out, own=True)
