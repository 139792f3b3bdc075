"""Certificates: what task gradients and losses say can be relied on, and under which assumptions.

Pure functions of a Gramian G = J J^T (K, K) and task losses L (K,), float64 on the CPU. Each names
its Phi, the residuals in h = (1/K) sum_k Phi_k^2: the task losses themselves, their square roots,
or signed residuals, one a row and output. What needs a fitted net is in :mod:`mtlsk.curvature`.
"""

from mtlsk.certificates.conditioning import (
    balancing_scale,
    cosine_condition_number,
    effective_tasks,
    ridge_condition_number,
)
from mtlsk.certificates.cone import critical_cone
from mtlsk.certificates.kantorovich import Kantorovich, kantorovich
from mtlsk.certificates.pl import pl_bound, pl_constant
from mtlsk.certificates.record import Certificate
from mtlsk.certificates.residuals import (
    RESIDUALS,
    h,
    residual_gramian,
    residuals,
    squared_gradient,
)
from mtlsk.certificates.sheet import GRAM_CERTIFICATES, GramCertificate, gram_certificates
from mtlsk.certificates.steps import gram_step, linear_rate, self_bounding_step, signed_step
from mtlsk.gramian import condition_number, effective_rank, min_cosine

__all__ = [
    "GRAM_CERTIFICATES",
    "RESIDUALS",
    "Certificate",
    "GramCertificate",
    "Kantorovich",
    "balancing_scale",
    "condition_number",
    "cosine_condition_number",
    "critical_cone",
    "effective_rank",
    "effective_tasks",
    "gram_certificates",
    "gram_step",
    "h",
    "kantorovich",
    "linear_rate",
    "min_cosine",
    "pl_bound",
    "pl_constant",
    "residual_gramian",
    "residuals",
    "ridge_condition_number",
    "self_bounding_step",
    "signed_step",
    "squared_gradient",
]
