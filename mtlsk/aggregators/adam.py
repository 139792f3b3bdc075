"""Adam on one number a task, for aggregators that learn their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator


def adam_step(
    aggregator: Aggregator,
    name: str,
    slope: Tensor,
    lr: float,
    decay: float | Tensor = 0.0,
    moves: Tensor | None = None,
) -> Tensor:
    """Move the memory ``name`` of the tasks of this call down ``slope`` (K,); return it, (K,).

    ``moves`` (K,) says which tasks of this call move, None for all; the others are left alone.

    Betas .9 and .999, eps 1e-8. ``decay`` times the memory is added to the slope (an L2 penalty,
    not decoupled decay). Moments and counts of steps are a task's own: a task that was not there
    is as it was, and one that appears late has its first steps corrected like any other.

    Attributes of the aggregator, all float64 of shape (K,) and zero at first: ``name`` itself,
    ``first_moment_``, ``second_moment_`` and ``n_adam_steps_``.

    **Reference** Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015,
    Algorithm 1.
    """
    k = len(slope)
    n, m, v, old = (
        aggregator.recall(memory, k)
        for memory in ("n_adam_steps_", "first_moment_", "second_moment_", name)
    )
    slope = slope + decay * old
    steps = n + 1
    first = 0.9 * m + 0.1 * slope
    second = 0.999 * v + 0.001 * slope**2
    size = (second / (1 - 0.999**steps)).sqrt() + 1e-8
    moved = old - lr * first / (1 - 0.9**steps) / size
    if moves is not None:
        pairs = ((steps, n), (first, m), (second, v), (moved, old))
        steps, first, second, moved = (torch.where(moves, new, kept) for new, kept in pairs)
    aggregator.remember("n_adam_steps_", steps)
    aggregator.remember("first_moment_", first)
    aggregator.remember("second_moment_", second)
    aggregator.remember(name, moved)
    return moved
