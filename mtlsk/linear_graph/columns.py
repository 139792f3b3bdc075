"""Which columns of a net's outputs belong to which task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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

    def between(self, first: int, end: int) -> list[tuple[int, slice]]:
        """Return (task, its columns less ``first``) of tasks with columns from first to end."""
        found = ((k, max(c.start, first), min(c.stop, end)) for k, c in enumerate(self.slices))
        return [(k, slice(a - first, b - first)) for k, a, b in found if a < b]

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over each task's columns of ``values`` (W,), shape (K,)."""
        if self.single:
            return values
        if self.owner.device != values.device:
            self.owner = self.owner.to(values.device)
        return values.new_zeros(len(self)).index_add(0, self.owner, values)
