"""The types of the arrays, and what rounding hides of a length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
EPS = float(np.finfo(np.float64).eps)


def rounding(gramian: Array, w: Array) -> float:
    """Return what rounding hides of w'Gw: 4 K eps (sum_i |w_i| |g_i|)^2.

    Where w'Gw is not above it, neither the length nor the direction of the sum of w_i g_i is known
    from G.
    """
    norms = np.sqrt(np.abs(gramian.diagonal()))
    return 4 * len(w) * EPS * float(norms @ np.abs(w)) ** 2
