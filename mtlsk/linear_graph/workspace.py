"""Memory that is used again in every step."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

FRESH = 1 << 15
"""Numbers below which memory comes cheaper from the allocator than from a workspace."""


class Workspace:
    """Memory that is used again in every step: fresh pages would cost as much as the products."""

    def __init__(self) -> None:
        self._flat: dict[Hashable, Tensor] = {}
        self._shaped: dict[Hashable, Tensor] = {}
        self._ones: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def empty(self, key: Hashable, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return a tensor of this shape, of the dtype and device of ``like``, with any values.

        What was handed out under the same key before is overwritten.
        """
        numel = math.prod(shape)
        if numel < FRESH:
            return like.new_empty(shape)
        last = self._shaped.get(key)
        if last is not None and last.dtype == like.dtype and last.device == like.device:
            if last.shape == shape:
                return last
            if self._flat[key].numel() >= numel:
                last = self._shaped[key] = self._flat[key][:numel].view(shape)
                return last
        flat = self._flat[key] = torch.empty(numel, dtype=like.dtype, device=like.device)
        last = self._shaped[key] = flat.view(shape)
        return last

    def ones(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return ones, not to be written to."""
        numel = math.prod(shape)
        flat = self._ones.get((dtype, device))
        if flat is None or flat.numel() < numel:
            flat = self._ones[dtype, device] = torch.ones(numel, dtype=dtype, device=device)
        return flat[:numel].view(tuple(shape))
