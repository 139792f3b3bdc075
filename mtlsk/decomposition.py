"""The same objective cut into other tasks, whose gradients conflict as much as is prescribed.

With T (K, K), the tasks T L have the Gramian T G T' at the parameters that G is of, and where every
column of T sums to 1 the same sum as L: the objective, its minima and the mean gradient stay, only
how it is cut into tasks changes. What an aggregator makes of a known conflict can be seen on them.
The Gramian is the prescribed one at these parameters; elsewhere it is what it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtlsk.gramian import EPS

__all__ = [
    "cosine_of_condition_number",
    "decompose_tasks",
    "equal_cosines",
    "make_tasks_with_cosine",
    "orthogonalize_tasks",
]


def equal_cosines(n_tasks: int, cosine: float) -> Tensor:
    """Return C = (1 - cosine) I + cosine 11' (K, K): unit vectors, all pairs at one cosine.

    Raises
    ------
    ValueError
        Unless -1 / (K - 1) < cosine < 1, for which C is positive definite, and K >= 2.
    """
    if n_tasks < 2:
        raise ValueError(f"there is {n_tasks} task; a conflict takes 2 or more")
    if not -1 / (n_tasks - 1) < cosine < 1:
        raise ValueError(
            f"cosine={cosine!r} is not allowed: {n_tasks} directions can be at a common cosine "
            f"above {-1 / (n_tasks - 1):.4g} and below 1 and be independent"
        )
    eye = torch.eye(n_tasks, dtype=torch.float64)
    return (1 - cosine) * eye + cosine * torch.ones_like(eye)


def cosine_of_condition_number(kappa: float, n_tasks: int, *, conflict: bool = True) -> float:
    """Return the cosine at which :func:`equal_cosines` has the condition number kappa.

    C has the eigenvalues 1 - c (K - 1 times) and 1 + (K - 1) c, so that c = -(kappa - 1) /
    ((K - 1) kappa + 1) with ``conflict`` and (kappa - 1) / (kappa + K - 1) without.

    Raises
    ------
    ValueError
        For a kappa below 1 or above 1e12, which float64 cannot hold.
    """
    if not 1 <= kappa <= 1e12:
        raise ValueError(
            f"condition_number={kappa!r} is not allowed; give a number from 1 (orthogonal "
            "gradients) to 1e12"
        )
    if conflict:
        return -(kappa - 1) / ((n_tasks - 1) * kappa + 1)
    return (kappa - 1) / (kappa + n_tasks - 1)


def decompose_tasks(gramian: Tensor, target: Tensor) -> Tensor:
    """Return T (K, K), columns summing to 1, with T G T' = a C for a prescribed C.

    The scale a = 1'G1 / 1'C1 is the only one at which the sum of the tasks can stay. Among all such
    T it is the one that moves the task gradients least, |T J - J|_F: T = (aC)^(1/2) Q G^(-1/2), Q
    orthogonal with Q'(aC)^(1/2) 1 = G^(1/2) 1, the rest of Q by Procrustes (ours).

    Parameters
    ----------
    gramian : tensor of shape (K, K)
        G = J J' of linearly independent task gradients.
    target : tensor of shape (K, K)
        C, symmetric and positive definite: cosines, or any Gramian up to its scale.

    Raises
    ------
    ValueError
        For shapes that differ, and for a G or C that is singular or not finite.
    """
    if target.shape != gramian.shape or gramian.ndim != 2 or len(gramian) != gramian.shape[1]:
        raise ValueError(
            f"the Gramian has shape {tuple(gramian.shape)} and the target {tuple(target.shape)}; "
            "both must be (K, K)"
        )
    root, inverse = _roots(gramian.double().cpu(), "the Gramian of the task gradients")
    wanted, _ = _roots(target.double().cpu(), "the target")
    ones = torch.ones(len(root), dtype=torch.float64)
    v, u = root @ ones, wanted @ ones
    wanted = wanted * (v.norm() / u.norm())
    # Q takes one direction to another, and the complements as near to each other as can be
    u, v = u / u.norm(), v / v.norm()
    across_u, across_v = _complement(u), _complement(v)
    left, _, right = torch.linalg.svd(across_u.T @ wanted @ root @ across_v)
    q = torch.outer(u, v) + across_u @ left @ right @ across_v.T
    mixing: Tensor = wanted @ q @ inverse
    return mixing


def make_tasks_with_cosine(
    gramian: Tensor,
    cosine: float | None = None,
    *,
    condition_number: float | None = None,
    conflict: bool = True,
) -> Tensor:
    """Return T (K, K) for tasks T L whose gradients have one length and are all at one cosine.

    All tasks are alike at this point, so that a rule that treats them alike (MGDA, CAGrad) begins
    with equal weights; :func:`decompose_tasks` takes targets of different lengths and angles.

    Parameters
    ----------
    gramian : tensor of shape (K, K)
        Of the task gradients at the parameters at hand, linearly independent.
    cosine : float or None
        In (-1 / (K - 1), 1).
    condition_number : float or None
        kappa of the Gramian instead, 1 to 1e3 and beyond, see :func:`cosine_of_condition_number`.
    conflict : bool
        Whether that kappa is reached by negative cosines or by positive ones.

    Raises
    ------
    ValueError
        Unless exactly one of both is given, and as :func:`decompose_tasks`.

    Examples
    --------
    >>> import torch
    >>> from mtlsk.decomposition import make_tasks_with_cosine
    >>> G = torch.tensor([[4.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    >>> T = make_tasks_with_cosine(G, condition_number=100.0)
    >>> torch.linalg.cond(T @ G @ T.T).round().item(), T.sum(0).round(decimals=9).tolist()
    (100.0, [1.0, 1.0])
    """
    if (cosine is None) == (condition_number is None):
        raise ValueError("give either cosine=... or condition_number=..., one of both")
    n_tasks = len(gramian)
    if n_tasks >= 2 and condition_number is not None:
        cosine = cosine_of_condition_number(condition_number, n_tasks, conflict=conflict)
    return decompose_tasks(gramian, equal_cosines(n_tasks, cosine or 0.0))


def orthogonalize_tasks(gramian: Tensor) -> Tensor:
    """Return T (K, K) for tasks T L with orthogonal gradients of one length: kappa is 1.

    **Reference** CANON, doi 10.5281/zenodo.19454888, has an orthogonal task decomposition; that the
    sum of the tasks stays, and this T, are ours.
    """
    return make_tasks_with_cosine(gramian, 0.0)


def _roots(matrix: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Return the square root of a matrix and its inverse; ValueError where there is none."""
    if not bool(matrix.isfinite().all()):
        raise ValueError(f"{what} is not finite; give one of a net that has not diverged")
    eigenvalues, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    if not float(eigenvalues[0]) > len(matrix) * EPS * float(eigenvalues[-1]):
        raise ValueError(
            f"{what} is singular: its eigenvalues go from {float(eigenvalues[0]):.3g} to "
            f"{float(eigenvalues[-1]):.3g}; directions must be independent: leave out tasks that "
            "repeat others or have no gradient"
        )
    roots = eigenvalues.sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _complement(unit: Tensor) -> Tensor:
    """Return an orthonormal basis (K, K - 1) of what is orthogonal to a unit vector."""
    basis: Tensor = torch.linalg.qr(unit[:, None], mode="complete")[0]
    return basis[:, 1:]
