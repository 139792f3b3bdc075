"""The features engine: the Gramian of the task gradients over the shared features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mtlsk.autodiff import gradient_over_outputs, weighted_gradient
from mtlsk.engines.base import Engine, Forward, TaskGradients
from mtlsk.engines.linear import add_gradient, gram_of_rows
from mtlsk.linear_graph import LEAF, Columns, Layer, Unrecognised, read_node


class FeatureGradients(TaskGradients):
    """G over the features by the heads alone, J^T w by one backward pass."""

    def __init__(
        self,
        losses: Tensor,
        shared: Sequence[Tensor],
        own: Sequence[Tensor],
        forward: Forward | None,
    ) -> None:
        self.losses = losses
        self.shared = tuple(shared)
        self.own = tuple(own)
        self.forward = forward

    @cached_property
    def head(self) -> Layer | None:
        """The one linear head on the outputs, None for any other structure."""
        return None if self.forward is None else fused_head(self.forward.outputs, self.own)

    @cached_property
    def top(self) -> Tensor:
        """The gradient of sum_k L_k over the outputs, (n, W)."""
        assert self.forward is not None
        return gradient_over_outputs(self.losses, self.forward.outputs)

    @cached_property
    def _gramian(self) -> Tensor:
        if self.forward is not None and self.head is not None and self.head.matrix is not None:
            w, r = self.head.matrix, self.top
            return by_task((r.T @ r).double() * (w @ w.T).double(), self.forward.columns)
        edges = features_below(self.losses, self.own)
        rows = []
        for one in torch.eye(len(self.losses), dtype=self.losses.dtype, device=self.losses.device):
            over = torch.autograd.grad(
                self.losses,
                edges,
                grad_outputs=one,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            rows.append(torch.cat([g.reshape(-1) for g in over]))
        return gram_of_rows(torch.stack(rows))

    def gramian(self) -> Tensor:
        """Return Z Z^T, Z_k the gradient of loss k over the features of all rows."""
        return self._gramian

    def block_norms(self) -> Tensor:
        """Raise: features say nothing about single parameter tensors."""
        raise NotImplementedError(
            "gramian='features' knows no gradient norms by parameter tensor; use 'auto' or 'budget'"
        )

    def combine(self, weights: Tensor) -> tuple[Tensor, ...]:
        """Return J^T w by one backward pass (one a tensor for weights (P, K))."""
        if weights.ndim == 1:
            return weighted_gradient(self.losses, weights, self.shared)
        return tuple(
            weighted_gradient(self.losses, w, [p])[0]
            for p, w in zip(self.shared, weights, strict=True)
        )

    def combine_own(self, weights: Tensor, own: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the gradient of w'L over the heads: by hand for one linear head."""
        if self.forward is None or self.head is None:
            return super().combine_own(weights, own)
        found: dict[int, Tensor] = {}
        add_gradient(found, self.head, self.top * self.forward.columns.of(weights.to(self.top)))
        return tuple(found[id(p)] for p in own)


def fused_head(outputs: Tensor, own: Sequence[Tensor]) -> Layer | None:
    """Return the linear layer that makes the outputs, if it alone is what the tasks own."""
    node: Any = outputs.grad_fn
    if node is None or node.name() not in ("AddmmBackward0", "MmBackward0"):
        return None
    try:
        layer, _, _ = read_node(node, set())
    except Unrecognised:
        return None
    held = {id(layer.weight), id(layer.bias)} if layer is not None else set()
    mine = {id(p) for p in own}
    alone = layer is not None and layer.matrix is not None and id(layer.weight) in mine
    return layer if alone and mine <= held else None


def by_task(products: Tensor, columns: Columns) -> Tensor:
    """Return the sums (K, K) over the tasks' columns of a matrix (W, W)."""
    if columns.single:
        return products
    rows = torch.stack([products[c].sum(0) for c in columns.slices])
    return torch.stack([rows[:, c].sum(1) for c in columns.slices], dim=1)


def above(root: Any, parameters: Sequence[Tensor]) -> set[Any]:
    """Return the nodes from ``root`` down that have one of the parameters below them."""
    wanted = {id(p) for p in parameters}
    parents: dict[Any, list[Any]] = {root: []}
    stack, found = [root], []
    while stack:
        node = stack.pop()
        if node.name() == LEAF and id(node.variable) in wanted:
            found.append(node)
        for child, _ in node.next_functions:
            if child is None:
                continue
            if child not in parents:
                parents[child] = []
                stack.append(child)
            parents[child].append(node)
    marked: set[Any] = set()
    while found:
        node = found.pop()
        if node not in marked:
            marked.add(node)
            found.extend(parents[node])
    return marked


def features_below(losses: Tensor, own: Sequence[Tensor]) -> list[GradientEdge]:
    """Return the edges of the graph where what the tasks own ends and the shared part begins.

    Raises
    ------
    ValueError
        If there are no task parameters, or a shared parameter is used beside them directly.
    """
    root: Any = losses.grad_fn
    heads = above(root, own) if root is not None else set()
    edges = {
        (child, place)
        for node in heads
        for child, place in node.next_functions
        if child is not None and child not in heads
    }
    if not heads or not edges or any(is_parameter(child) for child, _ in edges):
        raise ValueError(
            "gramian='features' needs task parameters (heads, by shared_parameters() or "
            "task_parameters(k) of the module) on top of features that all tasks share; use "
            "gramian='auto', 'budget' or 'online'"
        )
    return [GradientEdge(child, place) for child, place in met(edges)]


def is_parameter(node: Any) -> bool:
    """Say whether a node is a parameter, as it is or transposed."""
    if node.name() == "TBackward0":
        node = node.next_functions[0][0]
    return bool(node.name() == LEAF)


def met(edges: set[tuple[Any, int]]) -> set[tuple[Any, int]]:
    """Return where the ways down from several edges meet first, the edges if they do not.

    Heads may act on the features before their first layer, each by nodes of its own: what they
    share is below.
    """
    if len(edges) < 2:
        return edges
    ways = []
    for edge in edges:
        way = [edge]
        while True:
            below = [(f, i) for f, i in way[-1][0].next_functions if f is not None]
            if len(below) != 1 or below[0][0].name() == LEAF:
                break
            way.append(below[0])
        ways.append(way)
    groups: list[list[list[tuple[Any, int]]]] = []  # of ways that meet, if not all at one place
    for way in ways:
        meeting = [g for g in groups if any(set(way) & set(other) for other in g)]
        groups = [g for g in groups if g not in meeting]
        groups.append([way, *(other for g in meeting for other in g)])
    found = set()
    for group in groups:
        common = set(group[0]).intersection(*group[1:])
        found.add(next(edge for edge in group[0] if edge in common))
    return found


class Features(Engine):
    """Take the Gramian of the gradients over the shared features instead of the parameters.

    With Z the features that the heads read, G_kl = <dL_k/dZ, dL_l/dZ>: only the heads are
    differentiated, and the update is J^T w by one backward pass. For a fused linear head with
    weight W it is (R'R) o (W W'), R the gradient over the outputs.

    Error: conflict is judged over the features of each row, before the rows are summed and mapped
    to parameters. The Gramian is in other units than J J^T, so lengths taken from it (|d| = |g0|
    of ConicGrad, ``update_norm="mean"``) hold for the features.

    Needs a module that says which parameters are its tasks' own.

    Parameters
    ----------
    every : int
        Compute task weights in every so many steps only and keep them in between.

    **Reference** Sener and Koltun, "Multi-task learning as multi-objective optimization", NeurIPS
    2018, eq. (5), MGDA-UB (its upper bound, up to |dZ/dtheta|^2).
    """

    cost: ClassVar[str] = "the heads only, and one weighted gradient"
    error: ClassVar[str] = "conflict over features, not parameters; other units"
    knows_block_norms: ClassVar[bool] = False

    def __init__(self, every: int = 1) -> None:
        self.every = every

    def differentiate(
        self,
        losses: Tensor,
        shared: Sequence[Tensor],
        forward: Forward | None = None,
        own: Sequence[Tensor] = (),
    ) -> FeatureGradients:
        """Return the task gradients, computed when asked for."""
        return FeatureGradients(losses, shared, own, forward)
