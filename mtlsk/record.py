"""StepRecord: what one descent step saw and did."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StepRecord:
    """One descent step, read-only; statistics are float64 on the CPU.

    Attributes
    ----------
    step : int
        Number of steps taken before this one.
    losses : tensor of shape (K,)
        The raw task losses, NaN for a task without a label in the batch.
    gramian : tensor of shape (K', K') or None
        What the aggregator saw, P G P^T (None where it needs losses only).
    task_gramian : tensor of shape (n, n) or None
        G of the n present tasks before the task map: neither scaled nor grouped.
    weights : tensor of shape (K,)
        P^T w, the weights of the raw task gradients in the update; 0 for absent tasks.
    direction : tuple of tensors
        The update d of each shared parameter, on its device: read it, never write to it.
    present : tuple of int
        The tasks with a label in the batch.
    """

    step: int
    losses: Tensor
    gramian: Tensor | None
    task_gramian: Tensor | None
    weights: Tensor
    direction: tuple[Tensor, ...]
    present: tuple[int, ...]
