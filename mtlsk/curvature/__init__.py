"""Certificates and diagnoses that need a fitted net and its rows: curvature, reachable zeros.

Each works on a copy of the net's module in float64 and evaluation mode; the net is left alone.
"""

from mtlsk.curvature.copy64 import Copy64, copy_of
from mtlsk.curvature.hessian import HessianShares, hessian_shares
from mtlsk.curvature.levi import LeviForm, levi_certificates, levi_form
from mtlsk.curvature.lipschitz import estimated_lipschitz, lipschitz_bound
from mtlsk.curvature.moments import gauss_newton_diagonal, moment_correlation
from mtlsk.curvature.newton import gauss_newton
from mtlsk.curvature.zero import reachable_zero

__all__ = [
    "Copy64",
    "HessianShares",
    "LeviForm",
    "copy_of",
    "estimated_lipschitz",
    "gauss_newton",
    "gauss_newton_diagonal",
    "hessian_shares",
    "levi_certificates",
    "levi_form",
    "lipschitz_bound",
    "moment_correlation",
    "reachable_zero",
]
