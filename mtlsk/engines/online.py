"""The online engine: two weighted gradients and one product J d a step, whatever K is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mtlsk.autodiff import progress_by_double_backward, weighted_gradient
from mtlsk.domains import Interval
from mtlsk.engines.base import Again, Engine, Forward, TaskGradients
from mtlsk.engines.exact import AutogradGradients
from mtlsk.engines.linear import LinearGradients, gram_of_rows
from mtlsk.engines.reader import Reader
from mtlsk.engines.repeats import Repeats


class Pair(ABC):
    """Two weighted gradients g_0 = J^T w_0 and g_w = J^T w, and how the losses move along a mix.

    Attributes
    ----------
    gram2 : tensor of shape (2, 2), float64
        The Gramian of (g_0, g_w).
    own : tuple of tensors
        The gradient of w_0'L over the parameters that are not shared.
    """

    gram2: Tensor
    own: tuple[Tensor, ...]

    @abstractmethod
    def along(self, alpha: Any, beta: Any) -> tuple[Tensor, ...]:
        """Return d = alpha g_0 + beta g_w, a tensor a shared parameter."""

    @abstractmethod
    def progress(self) -> Tensor:
        """Return J d (K,), float64, of the last ``along``: how fast each loss falls along -d."""


class LinearPair(Pair):
    """By hand: two cotangents down the graph together, one tangent up it."""

    def __init__(
        self, gradients: LinearGradients, own: Sequence[Tensor], w0: Tensor, w: Tensor
    ) -> None:
        self.gradients = gradients
        self.graph, self.columns, self.top = gradients.graph, gradients.columns, gradients.top
        both = self.columns.of(torch.stack([w0, w]).to(self.top))  # (2, W)
        tops = self.top.unsqueeze(1) * both
        blocks: dict[int, Tensor] = {}  # (2, numel) of each parameter
        alone = {id(p) for p in own}  # of which g_w is not asked
        for c, layer in zip(self.graph.cotangents(tops), self.graph.layers, strict=True):
            d = c.value
            if id(layer.weight) in alone and (layer.bias is None or id(layer.bias) in alone):
                d = d[:, :1]
            if layer.weight is not None and layer.input is not None:
                rows = d.flatten(1).T @ layer.input  # (2 q, p)
                blocks[id(layer.weight)] = rows.view(d.shape[1], -1)
            if layer.bias is not None:
                blocks[id(layer.bias)] = d.sum(0)
        if all(id(p) in blocks for p in own):
            self.own = tuple(blocks[id(p)][0].view(p.shape) for p in own)
        else:
            self.own = gradients.combine_own(w0, own)
        self.moving = [p for p in gradients.shared if id(p) in blocks]
        self.parts = side_by_side([blocks[id(p)] for p in self.moving])
        self.gram2 = gram_of_parts(self.parts, self.top)

    def along(self, alpha: Any, beta: Any) -> tuple[Tensor, ...]:
        """Return d = alpha g_0 + beta g_w, made in the memory of g_0."""
        mixes = [mix_(part[0], part[1], alpha, beta) for part in self.parts]
        if len(mixes) == 1:
            mixes = list(torch.split_with_sizes(mixes[0], [p.numel() for p in self.moving]))
        self.direction = {id(p): d.view(p.shape) for p, d in zip(self.moving, mixes, strict=True)}
        return tuple(
            self.direction[id(p)] if id(p) in self.direction else torch.zeros_like(p)
            for p in self.gradients.shared
        )

    def progress(self) -> Tensor:
        """Return J d by a tangent through the graph."""
        moved = self.graph.tangent(self.direction)
        if moved is None:
            return torch.zeros(len(self.columns), dtype=torch.float64, device=self.top.device)
        return self.columns.sums((self.top * moved).sum(0).double())


SMALL = 1 << 18
"""Numbers that are sooner copied side by side than handled tensor by tensor."""


def side_by_side(blocks: list[Tensor]) -> list[Tensor]:
    """Return blocks (2, m) as one (2, M), or as they are where that would be a large copy."""
    if len(blocks) < 2 or sum(b.numel() for b in blocks) > SMALL:
        return blocks
    return [torch.cat(blocks, dim=1)]


def gram_of_parts(parts: list[Tensor], like: Tensor) -> Tensor:
    """Return the Gramian (2, 2), float64, of two rows that are cut into parts (2, m)."""
    if len(parts) == 1:
        return gram_of_rows(parts[0])
    total = torch.zeros((2, 2), dtype=torch.float64, device=like.device)
    for part in parts:
        total += gram_of_rows(part)
    return total


def mix_(a: Tensor, b: Tensor, alpha: Any, beta: Any) -> Tensor:
    """Set a to alpha a + beta b; the factors are numbers, or tensors of shape ()."""
    a.mul_(alpha)
    return a.addcmul_(b, beta.to(b)) if isinstance(beta, Tensor) else a.add_(b, alpha=beta)


class AutogradPair(Pair):
    """By two backward passes; the progress by the difference of the losses along the way."""

    def __init__(
        self,
        gradients: TaskGradients,
        own: Sequence[Tensor],
        w0: Tensor,
        w: Tensor,
        again: Again | None,
    ) -> None:
        self.losses, self.shared, self.again = gradients.losses, gradients.shared, again
        whole = weighted_gradient(self.losses, w0, (*self.shared, *own))
        self.first, self.own = whole[: len(self.shared)], whole[len(self.shared) :]
        self.second = weighted_gradient(self.losses, w, self.shared)
        if sum(g.numel() for g in self.first) > SMALL:
            pairs = zip(self.first, self.second, strict=True)
            parts = [torch.stack([a.reshape(-1), b.reshape(-1)]) for a, b in pairs]
        else:
            halves = (self.first, self.second) if self.first else ()
            rows = [torch.cat([g.reshape(-1) for g in half]) for half in halves]
            parts = [torch.stack(rows)] if rows else []
        self.gram2 = gram_of_parts(parts, self.losses)
        self.value = w0.to(self.losses) @ self.losses.detach()

    def along(self, alpha: Any, beta: Any) -> tuple[Tensor, ...]:
        """Return d = alpha g_0 + beta g_w."""
        (s0, b), (_, r) = self.gram2
        square = alpha**2 * s0 + 2 * alpha * beta * b + beta**2 * r
        # |d| times the larger of |g_0| and |g_w|: no mix of the losses falls faster
        self.slope = (square.clamp_min(0) * torch.maximum(s0, r)).sqrt()
        self.direction: tuple[Tensor, ...] = ()
        if not self.first:
            return self.direction
        mixed = torch._foreach_mul(self.first, alpha)
        if isinstance(beta, Tensor):
            torch._foreach_add_(mixed, torch._foreach_mul(self.second, beta))
        else:
            torch._foreach_add_(mixed, self.second, alpha=beta)
        self.direction = tuple(mixed)
        return self.direction

    def progress(self) -> Tensor:
        """Return J d."""
        if not self.shared:
            return torch.zeros_like(self.losses, dtype=torch.float64)
        if self.again is None:
            return progress_by_double_backward(self.losses, self.direction, self.shared).double()
        return progress_by_difference(
            self.losses, self.direction, self.shared, self.value, self.slope, self.again
        )


def progress_by_difference(
    losses: Tensor,
    direction: Sequence[Tensor],
    parameters: Sequence[Tensor],
    value: Tensor,
    slope: Tensor,
    again: Again,
) -> Tensor:
    """Return (L(theta) - L(theta - t d)) / t, about J d (K,) in float64, by one forward pass.

    The way t is a hundredth of the one on which the mean loss would reach zero if it fell at
    ``slope``, the larger of |g_0| |d| and |g_w| |d|, and moves the parameters by a hundredth of
    their length at most: long against the rounding of float32, short against curvature (ours).
    The parameters are swapped for the moved ones and back, bit for bit.
    """
    tiny = torch.finfo(torch.float64).tiny
    length = norm(direction).clamp_min(tiny)
    t = torch.minimum(
        STRIDE * value.double().abs() / slope.clamp_min(tiny), STRIDE * norm(parameters) / length
    )
    t = torch.where(t.isfinite() & (t > 0), t, torch.ones_like(t))
    kept = [p.data for p in parameters]
    way = torch._foreach_mul(list(direction), -t if t.is_cuda else -float(t))
    try:
        for p, moved in zip(parameters, torch._foreach_add(kept, way), strict=True):
            p.data = moved
        with torch.no_grad():
            after, _ = again(None)
    finally:
        for p, data in zip(parameters, kept, strict=True):
            p.data = data
    return (losses.detach().double() - after.double()) / t


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm of tensors as one vector, float64, shape ()."""
    norms = torch._foreach_norm([t.detach() for t in tensors])
    total: Tensor = torch.stack([n.double() for n in norms]).square().sum().sqrt()
    return total


STRIDE = 1e-2
"""Share of the way to zero mean loss that the loss difference looks ahead."""


class Online(Engine):
    """Follow the dual weights of the aggregator's inner problem instead of solving it each step.

    A step takes the mean gradient g_0, the dual gradient g_w = J^T w and the progress J d of the
    update d = alpha g_0 + beta g_w; then w moves by one projected gradient step. Its cost does not
    grow with K. Routes: nets of linear layers by hand (two cotangents, one tangent); any other
    module by two backward passes and the difference of the losses a short way along -d, before
    the optimizer acts, on the same random state; modules whose second pass gives other losses
    (randomness of their own) by a double backward pass.

    Error: the update is that of dual weights which lag behind the solution; a single step reaches
    about half of the worst-task progress of the exact one, the mean of the updates approaches it.
    The loss difference is first order: its relative error is that of the loss's curvature over a
    hundredth of the way to zero mean loss.

    For aggregators with an online dual: ConicGrad (exact), MGDA, CAGrad, SDMGrad.

    Parameters
    ----------
    dual_lr : float
        Step of the dual weights, relative to the largest recent |progress|.
    every : int
        Move the dual weights in every so many steps only and keep the task weights in between.
    """

    cost: ClassVar[str] = "two weighted gradients and one product J d, for any K"
    error: ClassVar[str] = "dual weights lag behind their solution"
    domains = {
        **Engine.domains,
        "dual_lr": Interval(0.0, 10.0, open_low=True, log=True, search=(0.01, 0.5)),
    }

    def __init__(self, dual_lr: float = 0.1, every: int = 1) -> None:
        self.dual_lr = dual_lr
        self.every = every

    def differentiate(
        self,
        losses: Tensor,
        shared: Sequence[Tensor],
        forward: Forward | None = None,
        own: Sequence[Tensor] = (),
    ) -> TaskGradients:
        """Return the exact task gradients; :meth:`pair` is the cheap part of them."""
        graph = Reader.of(self).read(losses, shared, own, forward)
        if graph is None or forward is None:
            return AutogradGradients(losses, shared)
        return LinearGradients(losses, shared, forward, graph)

    def pair(
        self,
        gradients: TaskGradients,
        own: Sequence[Tensor],
        w0: Tensor,
        w: Tensor,
        forward: Forward | None = None,
    ) -> Pair:
        """Return g_0 and g_w for weights (K,) of the raw task losses."""
        if isinstance(gradients, LinearGradients):
            return LinearPair(gradients, own, w0, w)
        again = None if forward is None else forward.again
        if again is not None and not Repeats.of(self).whole(gradients.losses, again):
            again = None
        return AutogradPair(gradients, own, w0, w, again)
