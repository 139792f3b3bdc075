"""Whether a second forward pass of a batch says the same as the first."""

from __future__ import annotations

import warnings
from typing import Self

import torch
from torch import Tensor

from mtlsk.engines.base import Again, Engine

MESSAGE = (
    "a second forward pass of {what} gives other {values} than the first (the module is random "
    "beyond torch's generators, or its rows depend on each other as in batch normalisation): "
    "{instead} from here on"
)


class Repeats:
    """Checks once that a module repeats itself, and remembers the answer for a live engine."""

    def __init__(self) -> None:
        self.answer: bool | None = None

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Return what an engine knows of its module."""
        known: Self | None = vars(engine).get("_repeats")
        if known is None:
            known = engine._repeats = cls()
        return known

    def whole(self, losses: Tensor, again: Again) -> bool:
        """Say whether the losses (K,) of the whole batch come out again."""
        if self.answer is None:
            with torch.no_grad():
                after, _ = again(None)
            self._settle(
                after,
                losses,
                what="the batch",
                values="losses",
                instead="J d is taken by a double backward pass",
            )
        return bool(self.answer)

    def part(self, outputs: Tensor, rows: slice, again: Again) -> bool:
        """Say whether some rows alone have the outputs (m, W) that they have in the batch."""
        if self.answer is None:
            with torch.no_grad():
                _, after = again(rows)
            self._settle(
                after,
                outputs[rows],
                what="some rows",
                values="outputs",
                instead="the Gramian is computed from all rows, by the exact route,",
            )
        return bool(self.answer)

    def _settle(self, after: Tensor, before: Tensor, **words: str) -> None:
        a, b = after.detach().double(), before.detach().double()
        tolerance = 1e-4 if before.dtype == torch.float32 else 1e-2
        tolerance = 1e-9 if before.dtype == torch.float64 else tolerance
        self.answer = bool(((a - b).abs().max() <= tolerance * b.abs().max()).item())
        if not self.answer:
            warnings.warn(MESSAGE.format(**words), stacklevel=2)
