"""Unit task gradients, tensor by tensor, for an optimizer that preserves their directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtlsk.engines.base import ENGINES, Engine, TaskGradients


def preserves_directions(optimizer: Any) -> bool:
    """Say whether an optimizer (:class:`~mtlsk.optimizers.Muon`) asks for task directions."""
    return bool(getattr(optimizer, "preserves_directions", False))


def task_directions(gradients: TaskGradients, p: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return (1/K) sum_k g_k / |g_k|_F in each shared tensor, over the K tasks of the step.

    A gradient of zero gives nothing but counts in K; a task that the map P (K', K) leaves out
    altogether (a ``task_scale`` of 0) does neither. Other scales and groups change nothing.
    """
    norms = gradients.block_norms()
    there = norms > torch.finfo(gradients.losses.dtype).tiny  # 1 / |g_k| must be a number, too
    n = norms.shape[1]
    if p is not None:
        counted = (p.sum(0) > 0).to(norms.device)
        there, n = there & counted, int(counted.sum())
    return gradients.combine(torch.where(there, 1 / (n * norms), 0.0))


def check_directions(engine: Engine, optimizer: Any, losses_only: bool) -> None:
    """Raise ValueError for an engine that cannot give an optimizer the task directions it needs.

    Where an aggregator looks at losses only (``losses_only``), no engine is used.
    """
    if losses_only or engine.knows_block_norms or not preserves_directions(optimizer):
        return
    can = ["auto", *sorted(n.lower() for n, e in ENGINES.members().items() if e.knows_block_norms)]
    raise ValueError(
        f"gramian={type(engine).__name__.lower()!r} knows no gradient norms by parameter tensor, "
        f"which direction_preservation of {type(optimizer).__name__} needs; use {', '.join(can)}, "
        "or direction_preservation=0"
    )
