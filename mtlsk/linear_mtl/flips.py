"""Whether sign flips make a symmetric matrix non-negative: a 2-colouring of its signed graph."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from mtlsk.linear_mtl.gram import Array

Signs = NDArray[np.int64]


def sign_flips(matrix: Array, tol: float) -> tuple[Signs | None, tuple[int, ...] | None]:
    """Return signs s (K,) with s_i s_j M_ij >= 0 for all i != j, or a cycle that forbids them.

    Off-diagonals |M_ij| <= tol are no edges. Walking a cycle (i, j, ..., i) that is returned, the
    number of negative edges is odd, so no signs can exist. One of the two is None. A task that no
    edge reaches has sign +1.
    """
    k = len(matrix)
    signs = np.zeros(k, dtype=np.int64)
    parent = [-1] * k
    for root in range(k):
        if signs[root]:
            continue
        signs[root] = 1
        queue = deque([root])
        while queue:
            i = queue.popleft()
            for j in range(k):
                if j == i or abs(matrix[i, j]) <= tol:
                    continue
                wanted = signs[i] * (1 if matrix[i, j] > 0 else -1)
                if signs[j] == 0:
                    signs[j], parent[j] = wanted, i
                    queue.append(j)
                elif signs[j] != wanted:
                    return None, _cycle(i, j, parent)
    return signs, None


def _cycle(i: int, j: int, parent: list[int]) -> tuple[int, ...]:
    """Return the cycle of the edge (i, j) and the tree's paths to where they meet."""

    def up(node: int) -> list[int]:
        path = [node]
        while parent[path[-1]] >= 0:
            path.append(parent[path[-1]])
        return path

    one, other = up(i), up(j)
    meet = next(node for node in one if node in other)
    left, right = one[: one.index(meet) + 1], other[: other.index(meet)]
    found = [*left, *reversed(right)]
    return (*found, found[0])
