"""What the nodes of an autograd graph are: linear layers, elementwise functions, sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    if len(inputs) > 1 and not keeps_shape(node):
        raise Unrecognised
    return None, elementwise, kept


LAST = (1 << 64) - 1
"""The dimension -1 as a node keeps it."""


def widths_of(node: Any) -> tuple[int, ...]:
    """Return the widths of what a node puts side by side, () for any other node."""
    if node.name() != "CatBackward0":
        return ()
    return tuple(f._input_metadata[0].shape[1] for f, _ in node.next_functions)


def keeps_shape(node: Any) -> bool:
    """Say whether all inputs have the node's shape and enter with factor 1: no broadcasting."""
    shape = node._input_metadata[0].shape
    same = all(f._input_metadata[0].shape == shape for f, _ in node.next_functions if f is not None)
    return same and getattr(node, "_saved_alpha", 1) == 1


def same_layer(old: Layer, node: Any, children: Any) -> Layer | None:
    """Return the layer of ``node`` if it holds the parameters of another pass's layer."""
    weight, bias = children[-1][0], children[0][0] if len(children) == 3 else None
    if (weight is None) != (old.weight is None) or (bias is None) != (old.bias is None):
        return None
    if len(children) == 3 and (node._saved_alpha != 1 or node._saved_beta != 1):
        return None
    if weight is not None and weight.name() != "TBackward0":
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
    if bias is not None and tuple(bias.shape) != tuple(node._input_metadata[0].shape[1:]):
        raise Unrecognised  # broadcast over the outputs
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


def leaves_beside(losses: Tensor, outputs: Tensor) -> set[int]:
    """Return the ids of the parameters that the losses reach otherwise than through the outputs."""
    found: set[int] = set()
    seen = {outputs.grad_fn}
    stack: list[Any] = [losses.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == LEAF:
            found.add(id(node.variable))
        stack.extend(child for child, _ in node.next_functions)
    return found
