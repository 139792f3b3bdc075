"""Dual weights that follow the training instead of being solved for in every step."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

TINY = 1e-300
"""Added to denominators that may be zero."""


class OnlineDual:
    """Mixin of aggregators whose inner problem is a min over w in the simplex with gradient J d.

    An engine then needs the mean gradient g0, the dual gradient g_w and the progress J d only,
    never the whole Gramian. The update is d = alpha g0 + beta g_w.

    A step works with plain floats where the losses are on the CPU, and with float64 tensors on
    their device elsewhere, so that nothing waits for it.

    The step does not shrink with the progress, so the last dual weights keep moving around the
    solution: it is the mean of the updates over the steps that approaches the exact one.

    Attributes
    ----------
    dual_ : float64 tensor of shape (K,)
        The dual weights w, on the simplex; equal weights at first. Memory.
    dual_scale_ : float, or float64 tensor of shape () on a device
        A slowly forgotten maximum of |progress|, which makes the step free of units. Memory.
    """

    active_: tuple[int, ...] | None
    dual_: Tensor
    dual_scale_: Any

    @property
    def has_online_dual(self) -> bool:
        """Whether these parameters have an online dual."""
        return True

    @abstractmethod
    def coefficients(self, s0: Any, b: Any, r: Any) -> tuple[Any, Any]:
        """Return (alpha, beta) of d = alpha g0 + beta g_w, finite for any input.

        From s0 = |g0|^2, b = <g0, g_w> and r = |g_w|^2: floats, or tensors of shape () where
        :func:`functions` are torch's.
        """

    def dual_weights(self, n_tasks: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the dual weights of the ``n_tasks`` active tasks, on the simplex, shape (K,).

        Equal ones where there are none yet; a task seen for the first time gets a mean share.
        """
        active = self._active(n_tasks)
        least = max(active, default=-1) + 1
        known: Tensor | None = getattr(self, "dual_", None)
        if known is None:
            known = torch.zeros(0, dtype=torch.float64, device=device)
            self.dual_scale_ = 0.0
        if known.device.type != torch.device(device).type:
            known = known.to(device)
        if len(known) < least:
            share = known.mean() if len(known) else known.new_ones(())
            known = torch.cat([known, share.expand(least - len(known))])
            known = known / known.sum()
        self.dual_ = known
        if len(active) == len(known):
            return known
        some = known[active] + TINY  # all of them at zero: equal shares
        return some / some.sum()

    def advance(self, progress: Tensor, lr: float = 0.1) -> Tensor:
        """Move the dual weights against progress = J d (K,): w <- P(w - lr progress / scale).

        Tasks that the update helps least gain weight. P projects on the simplex; scale is the
        running maximum of max_k |progress_k|, forgotten by 1 % a step (ours). The active tasks
        share what they had together.
        """
        progress = progress.to(torch.float64)
        if progress.is_cuda or not math.isfinite(float(progress.sum())):
            # a loss that overflows ahead says nothing about where to go
            progress = torch.where(progress.isfinite(), progress, 0.0)
        w = self.dual_weights(len(progress), progress.device)
        if progress.is_cuda:
            last = torch.as_tensor(self.dual_scale_, dtype=torch.float64, device=progress.device)
            self.dual_scale_ = torch.maximum(0.99 * last, progress.abs().max())
            moved = nearest_on_simplex(w - lr / (self.dual_scale_ + TINY) * progress)
        else:
            values = progress.tolist()
            scale = max(0.99 * float(self.dual_scale_), *map(abs, values))
            self.dual_scale_ = scale
            step = lr / (scale + TINY)
            pairs = zip(w.tolist(), values, strict=True)
            moved = torch.tensor(nearest([v - step * p for v, p in pairs]), dtype=torch.float64)
        active = self._active(len(progress))
        if len(active) == len(self.dual_):
            self.dual_ = moved
        else:
            dual = self.dual_.clone()
            dual[active] = moved * dual[active].sum()
            self.dual_ = dual
        return moved

    def _active(self, n_tasks: int) -> list[int] | range:
        return range(n_tasks) if self.active_ is None else list(self.active_)


class Floats:
    """The functions of torch that formulas of coefficients use, for plain floats."""

    sqrt = staticmethod(math.sqrt)

    @staticmethod
    def where(condition: bool, yes: Any, no: Any) -> Any:
        """Return ``yes`` or ``no``."""
        return yes if condition else no


def functions(value: Any) -> Any:
    """Return torch for a tensor, :class:`Floats` for a number: sqrt and where are in both."""
    return torch if isinstance(value, Tensor) else Floats


def nearest_on_simplex(v: Tensor) -> Tensor:
    """Return the point of the simplex nearest to ``v`` (K,): max(v - tau, 0).

    tau is the largest of (v_1 + ... + v_j - 1) / j over the sorted v: each is the solution if
    just the j largest are not zero (Held, Wolfe and Crowder 1974).
    """
    u = v.sort(descending=True).values
    j = torch.arange(1, len(v) + 1, dtype=v.dtype, device=v.device)
    return (v - ((u.cumsum(0) - 1) / j).max()).clamp_min(0)


def nearest(v: list[float]) -> list[float]:
    """Return :func:`nearest_on_simplex` of a list: ten times faster for a few numbers."""
    total, tau = -1.0, -math.inf
    for j, value in enumerate(sorted(v, reverse=True), 1):
        total += value
        tau = max(tau, total / j)
    return [max(value - tau, 0.0) for value in v]
