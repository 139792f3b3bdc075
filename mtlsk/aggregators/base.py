"""What an aggregator is: (Gramian of the task gradients, task losses) -> task weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mtlsk.component import Component, Registry


class Aggregator(Component, ABC):
    """How K task gradients become one update d = J^T w.

    Subclasses implement :meth:`task_weights`; a third party's whole contribution is such a class,
    its ``domains`` and ``check_aggregator`` in a test.

    Attributes
    ----------
    needs : "gramian" or "losses"
        What :meth:`task_weights` looks at; ``"losses"`` (the Gramian is then None) buys a step of
        one backward pass.
    needs_losses_after : bool
        Whether the step calls :meth:`observe` with the losses after the update.
    active_ : tuple of int or None
        Which tasks the rows of this call are, of all K; None outside a net and where all are
        there. Stateful aggregators index their memory by it.
    """

    needs: ClassVar[Literal["gramian", "losses"]] = "gramian"
    needs_losses_after: ClassVar[bool] = False
    active_: tuple[int, ...] | None = None

    @abstractmethod
    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the weights w of the update d = J^T w.

        Parameters
        ----------
        gramian : float64 tensor of shape (K, K) on the CPU, or None if ``needs == "losses"``
            G = J J^T of the gradients of the task losses over the shared parameters.
        losses : float64 tensor of shape (K,) on the CPU

        Returns
        -------
        float64 tensor of shape (K,)
        """

    def observe(self, losses_after: Tensor) -> None:
        """Take in the task losses (K,) after the update, if ``needs_losses_after``."""

    def _memory(self) -> list[str]:
        return [name for name in super()._memory() if name != "active_"]


AGGREGATORS: Registry[Aggregator] = Registry("aggregator", "mtlsk.aggregators", Aggregator)


def require_gramian(gramian: Tensor | None) -> Tensor:
    """Return ``gramian``, or raise for a missing, non-square or non-finite one (task named)."""
    if gramian is None:
        raise ValueError("this aggregator needs the Gramian G = J J^T, got None")
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1] or len(gramian) == 0:
        raise ValueError(f"the Gramian must have shape (K, K), got {tuple(gramian.shape)}")
    finite = gramian.isfinite()
    if not bool(finite.all()):
        task = int((~finite).sum(0).argmax())
        raise ValueError(f"the gradient of task {task} is not finite: its Gramian row has NaN/inf")
    return gramian.to(torch.float64)


class OnlineDual:
    """Mixin of aggregators whose inner problem is a min over w in the simplex with gradient J d.

    Their dual weights can follow the training instead of being solved for in every step: an
    engine then needs the mean gradient g0, the dual gradient g_w and the progress J d only, never
    the whole Gramian. The update is d = alpha g0 + beta g_w.

    What a step works with are float64 arrays: of numpy where the losses are on the CPU (small
    operations cost a tenth there), tensors on their device elsewhere, so that nothing waits for it.

    The step does not shrink with the progress, so the last dual weights keep moving around the
    solution: it is the mean of the updates over the steps that approaches the exact one.

    Attributes
    ----------
    dual_ : float64 tensor of shape (K,)
        The dual weights w, on the simplex; equal weights at first. Memory.
    dual_scale_ : float64 tensor of shape ()
        A slowly forgotten maximum of |progress|, which makes the step free of units. Memory.
    """

    active_: tuple[int, ...] | None
    dual_: Tensor
    dual_scale_: Tensor

    @property
    def has_online_dual(self) -> bool:
        """Whether these parameters have an online dual."""
        return True

    @abstractmethod
    def coefficients(self, gram2: Any) -> tuple[Any, Any]:
        """Return (alpha, beta) of d = alpha g0 + beta g_w, finite scalars.

        From the Gramian of (g0, g_w), an array (2, 2); :func:`namespace` gives its functions.
        """

    def dual_weights(self, n_tasks: int, device: torch.device | str = "cpu") -> Any:
        """Return the dual weights of the ``n_tasks`` active tasks, an array on the simplex.

        Equal ones where there are none yet; a task seen for the first time gets a mean share.
        """
        active = self._active(n_tasks)
        least = max(active, default=-1) + 1
        known = getattr(self, "dual_", None)
        if known is None:
            known = torch.zeros(0, dtype=torch.float64, device=device)
            self.dual_scale_ = torch.zeros((), dtype=torch.float64, device=device)
        if len(known) < least:
            share = known.mean() if len(known) else known.new_ones(())
            known = torch.cat([known, share.expand(least - len(known))])
            known = known / known.sum()
        if known.device.type != torch.device(device).type:
            known, self.dual_scale_ = known.to(device), self.dual_scale_.to(device)
        self.dual_ = known
        w = known if known.is_cuda else known.numpy()
        if len(active) == len(w):
            return w
        some = w[active]
        # all of them at zero: equal shares
        return (some + TINY) / (some + TINY).sum()

    def advance(self, progress: Any, lr: float = 0.1) -> Any:
        """Move the dual weights against progress = J d (K,): w <- P(w - lr progress / scale).

        Tasks that the update helps least gain weight. P projects on the simplex; scale is the
        running maximum of max_k |progress_k|, forgotten by 1 % a step (ours). The active tasks
        share what they had together.
        """
        if isinstance(progress, Tensor) and not progress.is_cuda:
            progress = progress.numpy()
        tensor = isinstance(progress, Tensor)
        w = self.dual_weights(len(progress), progress.device if tensor else "cpu")
        scale = self.dual_scale_ if tensor else self.dual_scale_.numpy()
        largest = abs(progress).max()
        scale = 0.99 * scale + (largest - 0.99 * scale).clip(0.0)  # the larger of the two
        moved = nearest_on_simplex(w - lr / (scale + TINY) * progress)
        self.dual_scale_ = scale if tensor else torch.tensor(float(scale), dtype=torch.float64)
        active = self._active(len(progress))
        if len(active) == len(self.dual_):
            self.dual_ = moved if tensor else torch.from_numpy(moved)
        else:
            dual = self.dual_.clone()
            whole = dual if tensor else dual.numpy()
            whole[active] = moved * whole[active].sum()
            self.dual_ = dual
        return moved

    def _active(self, n_tasks: int) -> list[int] | range:
        return range(n_tasks) if self.active_ is None else list(self.active_)


TINY = 1e-300
"""Added to denominators that may be zero."""


def namespace(array: Any) -> Any:
    """Return torch for a tensor, numpy for anything else: sqrt and where are in both."""
    return torch if isinstance(array, Tensor) else np


def nearest_on_simplex(v: Any) -> Any:
    """Return the point of the simplex nearest to the array ``v`` (K,): max(v - tau, 0).

    tau is the largest of (v_1 + ... + v_j - 1) / j over the sorted v: each is the solution if
    just the j largest are not zero (Held, Wolfe and Crowder 1974).
    """
    u: Any
    j: Any
    if isinstance(v, Tensor):
        u = v.sort(descending=True).values
        j = torch.arange(1, len(v) + 1, dtype=v.dtype, device=v.device)
    else:
        u = np.sort(v)[::-1]
        j = np.arange(1, len(v) + 1)
    return (v - ((u.cumsum(0) - 1) / j).max()).clip(0.0)


def scaled(gramian: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return (G / max_k |g_k|^2 as numpy without the zero rows, mask (K,) of the tasks kept).

    A task whose gradient is zero has nothing to lose to first order: keeping it in a min-norm or
    worst-task problem would stop all the others, so it is left out (ours).
    """
    g = gramian.numpy()
    diagonal = np.diagonal(g)
    largest = diagonal.max()
    keep = diagonal > 1e-30 * largest
    if not keep.any():
        return np.zeros((0, 0)), keep
    return g[np.ix_(keep, keep)] / largest, keep


def spread(weights: np.ndarray, keep: np.ndarray) -> Tensor:
    """Return weights of the kept tasks as (K,) with zeros for the others."""
    full = np.zeros(len(keep))
    full[keep] = weights
    return torch.from_numpy(full)
