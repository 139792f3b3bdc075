"""Small convex problems over the simplex {w >= 0, sum w = 1}, in float64 numpy, K up to a few 100.

Each works on a Gramian (K, K) only: nothing here sees a gradient.
"""

from mtlsk.simplex.cone import ConeSolution, exact_cone
from mtlsk.simplex.draws import spread_on_simplex
from mtlsk.simplex.faces import search_faces
from mtlsk.simplex.fair import fair_weights
from mtlsk.simplex.minimum import linear_plus_norm, min_norm_point
from mtlsk.simplex.nonnegative import shortest_increase
from mtlsk.simplex.numerics import EPS, Array, Mask, rounding
from mtlsk.simplex.units import equal_projections, spectrum, unit_cosines

__all__ = [
    "EPS",
    "Array",
    "ConeSolution",
    "Mask",
    "equal_projections",
    "exact_cone",
    "fair_weights",
    "linear_plus_norm",
    "min_norm_point",
    "rounding",
    "search_faces",
    "shortest_increase",
    "spectrum",
    "spread_on_simplex",
    "unit_cosines",
]
