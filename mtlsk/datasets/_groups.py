"""Rows of one group stay together: which part each group goes to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign_groups"]

WORK = 10_000  # about how many groups are placed in all; few groups get many tries


def _place(sizes: NDArray[np.int64], wanted: NDArray[np.float64]) -> NDArray[np.intp]:
    """Give each group in turn to the part that lacks most rows, and leave no part empty."""
    parts = np.empty(len(sizes), dtype=np.intp)
    lacking, empty = wanted.copy(), np.ones(len(wanted), dtype=np.bool_)
    for i, size in enumerate(sizes):
        must = len(sizes) - i <= empty.sum()
        open_to = np.where(empty, lacking, -np.inf) if must else lacking
        parts[i] = np.argmax(open_to)
        lacking[parts[i]] -= size
        empty[parts[i]] = False
    return parts


def assign_groups(
    sizes: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.RandomState
) -> NDArray[np.intp]:
    """Choose a part for each group: of many random orders, the one with fewest rows astray."""
    wanted = shares * sizes.sum()
    best, least = np.empty(0, dtype=np.intp), np.inf
    for _ in range(1 + WORK // len(sizes)):
        order = rng.permutation(len(sizes))
        parts = np.empty(len(sizes), dtype=np.intp)
        parts[order] = _place(sizes[order], wanted)
        got = np.bincount(parts, weights=sizes, minlength=len(shares))
        astray = float(np.abs(got - wanted).sum())
        if astray < least:
            best, least = parts, astray
        if least == 0.0:
            break
    return best
