"""The Levi form of a holomorphic net's objective, and what Gauss-Newton leaves out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlsk.certificates import Certificate
from mtlsk.curvature.copy64 import Copy64, copy_of
from mtlsk.curvature.hessian import real_hessian
from mtlsk.curvature.lipschitz import residual_jacobian
from mtlsk.modules import HolomorphicSharing, squared_error

LARGEST = 1024
"""Real parameters up to which the Hessian is held."""
PHI = "complex residuals f_k(x_i) - y_ik"


@dataclass(frozen=True, eq=False)
class LeviForm:
    """Second derivatives of h = (1/R) sum_r |Phi_r|^2 in m complex parameters z.

    Attributes
    ----------
    levi : complex tensor of shape (m, m)
        d2 h / d(conj z_a) d z_b, from the real Hessian of h, hermitian.
    gauss_newton : complex tensor of shape (m, m)
        J^H J / R, from the first derivatives of Phi alone.
    pure : complex tensor of shape (m, m)
        d2 h / d z_a d z_b = (1/R) sum_r conj(Phi_r) d2 Phi_r, symmetric: it does not vanish.
    residual_eigenvalues : tensor of shape (2 m,), ascending
        Of S, the real Hessian of h minus its Gauss-Newton part: in real coordinates all of S comes
        from the pure block.
    hessian_norm : float
        Frobenius norm of the real Hessian.
    """

    levi: Tensor
    gauss_newton: Tensor
    pure: Tensor
    residual_eigenvalues: Tensor
    hessian_norm: float

    @property
    def defect(self) -> float:
        """|levi - J^H J / R|_F / |levi|_F: rounding for a holomorphic Phi, more for any other."""
        return float((self.levi - self.gauss_newton).norm() / self.levi.norm())

    @property
    def residual_trace(self) -> float:
        """Trace of S over the sum of |eigenvalues|, in [-1, 1]: 0 for a holomorphic Phi."""
        size = float(self.residual_eigenvalues.abs().sum())
        return float(self.residual_eigenvalues.sum()) / size if size else 0.0

    @property
    def asymmetry(self) -> float:
        """max_i |s_i + s_{2m+1-i}| / max |s|: 0 where each eigenvalue of S has its negative."""
        s = self.residual_eigenvalues
        largest = float(s.abs().max())
        return float((s + s.flip(0)).abs().max()) / largest if largest else 0.0

    @property
    def residual_share(self) -> float:
        """|S|_F / |Hess h|_F."""
        return float(self.residual_eigenvalues.norm()) / self.hessian_norm


def levi_form(net: Any, X: Any, y: Any) -> LeviForm:
    """Return the Levi form and the pure block of h = (1/R) sum_r |Phi_r|^2, twice the mean loss.

    R = n K complex residuals Phi = f_k(x_i) - y_ik of a net of K pairs of targets. With real
    coordinates z = u + iv and the blocks A, B, C of the Hessian over (u, v),

        levi = (A + C + i (B' - B)) / 4,      pure = (A - C - i (B' + B)) / 4.

    For holomorphic Phi levi is exactly J^H J / R, so that "the residual part is 0" holds of the
    Levi form; in real coordinates the pure block remains, and S has trace 0 and the eigenvalues
    +- 2 sigma_i, sigma the singular values of ``pure``.

    Parameters
    ----------
    net : MultiTaskNet
        Fitted, of the module HolomorphicSharing, with squared errors.
    X, y : as for ``fit``
        Rows without missing labels; 1024 evenly spaced ones at most.

    Raises
    ------
    ValueError
        For another module or criterion, missing labels, or more than 1024 real parameters.

    **Reference** CANON, doi 10.5281/zenodo.19454888, has S = 0; that it is so of the Levi form, and
    what remains in real coordinates, is ours.
    """
    copy = copy_of(net, X, y)
    _check(copy)
    hessian = 2 * real_hessian(copy)  # h is twice the mean loss
    jacobian = residual_jacobian(copy, ~copy.y.isnan())  # real rows (2R, 2m)
    real_part = 4 / len(jacobian) * jacobian.T @ jacobian  # GN = (2/R) J'J, R half the rows
    a, b, c = hessian[::2, ::2], hessian[::2, 1::2], hessian[1::2, 1::2]
    of_real = jacobian[::2]  # d Phi / dz = d Re Phi / du - i d Re Phi / dv
    j = torch.complex(of_real[:, ::2], -of_real[:, 1::2])
    return LeviForm(
        levi=torch.complex(a + c, b.T - b) / 4,
        gauss_newton=j.mH @ j / len(j),
        pure=torch.complex(a - c, -(b.T + b)) / 4,
        residual_eigenvalues=torch.linalg.eigvalsh(hessian - real_part),
        hessian_norm=float(hessian.norm()),
    )


def levi_certificates(net: Any, X: Any, y: Any) -> tuple[Certificate, ...]:
    """Return what :func:`levi_form` says as certificates, or why they are not applicable."""
    meanings = {
        "levi_defect": "how far the Levi form of h is from J^H J / R: rounding, if holomorphic",
        "residual_trace": "trace of S over the sum of its |eigenvalues|: 0 if holomorphic",
        "residual_asymmetry": "how far the spectrum of S is from +- symmetric: 0 if holomorphic",
        "pure_share": "|S|_F / |Hess h|_F, the part of the Hessian that is left to the pure block",
    }
    known = ("Phi holomorphic in all parameters", "evenly spaced rows of those given, 1024 at most")
    try:
        form = levi_form(net, X, y)
        values: list[float | None] = [
            form.defect,
            form.residual_trace,
            form.asymmetry,
            form.residual_share,
        ]
        reason = ""
    except ValueError as error:
        values, reason = [None] * len(meanings), str(error)
    return tuple(
        Certificate(name, value, "", PHI, known, reason, meaning=meaning)
        for (name, meaning), value in zip(meanings.items(), values, strict=True)
    )


def _check(copy: Copy64) -> None:
    module = copy.module
    if not isinstance(module, HolomorphicSharing):
        raise ValueError(
            f"the module is {type(module).__name__}, which has no complex parameters; give "
            "module=HolomorphicSharing"
        )
    if any(task.criterion is not squared_error for task in copy.net.tasks_):
        raise ValueError("a criterion is not squared_error: h is no mean of |Phi|^2")
    if bool(copy.y.isnan().any()):
        raise ValueError("y has missing labels: a complex residual needs both parts")
    if copy.size > LARGEST:
        raise ValueError(f"{copy.size} real parameters are more than {LARGEST}; take a smaller net")
    if copy.size < sum(p.numel() for p in module.parameters()):
        raise ValueError("some parameters are frozen: pairs must be whole; free them")
    if np.prod(copy.y.shape) == 0:
        raise ValueError("there are no rows")
