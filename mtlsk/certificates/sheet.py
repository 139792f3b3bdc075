"""The certificates of a Gramian and losses by name: what each is of, rests on and says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from mtlsk.certificates.conditioning import (
    cosine_condition_number,
    effective_tasks,
    ridge_condition_number,
)
from mtlsk.certificates.cone import critical_cone
from mtlsk.certificates.pl import ROUNDING, pl_bound, pl_constant
from mtlsk.certificates.record import Certificate
from mtlsk.certificates.residuals import h, smallest_eigenvalue, squared_gradient
from mtlsk.certificates.steps import gram_step, self_bounding_step
from mtlsk.gramian import condition_number, min_cosine

RIDGE = 0.01
"""Ridge as a share of the mean squared gradient norm: a hundredth, below which directions of G are
those that float32 gradients of small batches do not reproduce."""

LOSSES, SQRT = "task losses", "sqrt of task losses"
FULL_RANK = "task gradients linearly independent"
NON_NEGATIVE = "losses never negative"


@dataclass(frozen=True)
class GramCertificate:
    """One certificate of (G, L): its function and what there is to say about it.

    Attributes
    ----------
    name : str
    function : callable
        (gramian (K, K), losses (K,), **options) -> float; raises ValueError outside its domain.
    better : "larger", "smaller" or ""
        Which of two values is the better one; ``""`` where neither is.
    unit, phi, meaning, assumptions : as in :class:`Certificate`
    options : mapping
        The keyword arguments of ``function`` and their defaults.
    """

    name: str
    function: Callable[..., float]
    meaning: str
    better: str = ""
    unit: str = ""
    phi: str = "-"
    assumptions: tuple[str, ...] = ()
    options: Mapping[str, Any] | None = None

    def value(self, gramian: Tensor, losses: Tensor, **options: Any) -> float:
        """Return the value; ValueError, with the reason, where it is not applicable."""
        known = dict(self.options or {})
        for name in options:
            if name not in known:
                takes = ", ".join(known) or "none"
                raise ValueError(f"{self.name} has no option {name!r}; its options: {takes}")
        found = float(self.function(gramian, losses, **{**known, **options}))
        if not math.isfinite(found):
            raise ValueError("the gradient is zero: no step is better than another")
        return found

    def certify(self, gramian: Tensor, losses: Tensor, **options: Any) -> Certificate:
        """Return the certificate, not applicable with its reason where there is no value."""
        mine = {n: v for n, v in options.items() if n in (self.options or {})}
        about = (self.unit, self.phi, self.assumptions)
        try:
            value = self.value(gramian, losses, **mine)
        except ValueError as error:
            return Certificate(self.name, None, *about, reason=str(error), meaning=self.meaning)
        return Certificate(self.name, value, *about, meaning=self.meaning)


def check(gramian: Tensor, losses: Tensor) -> None:
    """Raise ValueError unless there are a finite (K, K) Gramian and K finite losses."""
    k = len(losses)
    if k == 0 or gramian.shape != (k, k):
        raise ValueError(f"a Gramian of shape {tuple(gramian.shape)} and {k} losses do not fit")
    if not bool(gramian.isfinite().all()) or not bool(losses.isfinite().all()):
        raise ValueError("gradients or losses are not finite: the net has diverged on these rows")


def gram_certificates(gramian: Tensor, losses: Tensor, **options: Any) -> Iterator[Certificate]:
    """Yield every certificate of (G, L), those that are not applicable too.

    Parameters
    ----------
    gramian, losses : tensors of shapes (K, K) and (K,), float64 on the CPU
    **options
        ``beta`` (smoothness of the losses), ``ridge`` (a share of the mean squared norm) and
        ``rounding`` (relative error of the entries of G), for those that take them.
    """
    check(gramian, losses)
    for entry in GRAM_CERTIFICATES.values():
        yield entry.certify(gramian, losses, **options)


def _kappa(of: Callable[[Tensor], float], g: Tensor, losses: Tensor, *, rounding: float) -> float:
    keep = g.diagonal() > 0
    if not bool(keep.any()):
        raise ValueError("every task gradient is zero")
    smallest_eigenvalue(g[keep][:, keep], rounding)
    return of(g)


def _ridge(g: Tensor, losses: Tensor, *, ridge: float) -> float:
    mean = float(g.diagonal().mean())
    if mean <= 0:
        raise ValueError("every task gradient is zero")
    if not 0 < ridge < math.inf:
        raise ValueError(f"ridge={ridge!r} is not allowed; it is a share of tr(G)/K above 0")
    return ridge_condition_number(g, ridge * mean)


def _pairs(g: Tensor, losses: Tensor) -> float:
    if int((g.diagonal() > 0).sum()) < 2:
        raise ValueError("there are no two tasks with a gradient")
    return float(min_cosine(g))


def _gradients(of: Callable[[Tensor], float], g: Tensor, losses: Tensor) -> float:
    if not bool((g.diagonal() > 0).any()):
        raise ValueError("every task gradient is zero")
    return of(g)


def _bounding(g: Tensor, losses: Tensor, *, beta: float | None) -> float:
    if beta is None:
        raise ValueError("beta, the smoothness of every task loss, is not known: give beta=...")
    return self_bounding_step(losses, beta)


def _gram_step(g: Tensor, losses: Tensor, *, phi: Any) -> float:
    return gram_step(losses, g, residual=phi)


def _of(function: Callable[..., float], phi: Any, g: Tensor, losses: Tensor, **kw: Any) -> float:
    return function(losses, g, phi, **kw)


def _h(phi: Any, g: Tensor, losses: Tensor) -> float:
    return h(losses, phi)


EXACT = {"rounding": ROUNDING}
ALL = (
    GramCertificate(
        "condition_number", partial(_kappa, condition_number),
        "kappa(G): near 1 the task gradients are orthogonal and of one length",
        "smaller", options=EXACT,
    ),
    GramCertificate(
        "cosine_condition_number", partial(_kappa, cosine_condition_number),
        "kappa of the cosines: angles only, within a factor K of the best task_scale's kappa",
        "smaller", options=EXACT,
    ),
    GramCertificate(
        "ridge_condition_number", _ridge,
        f"kappa(G + ridge I), ridge {RIDGE:g} of the mean squared gradient norm unless given",
        "smaller", options={"ridge": RIDGE},
    ),
    GramCertificate(
        "effective_tasks", partial(_gradients, effective_tasks),
        "effective rank of the cosines: how many different directions the tasks have", "larger",
    ),
    GramCertificate(
        "min_cosine", _pairs,
        "smallest cosine between two task gradients: below 0 two tasks conflict", "larger",
    ),
    GramCertificate(
        "critical_cone", partial(_gradients, critical_cone),
        "c_crit: a direction d with cos(d, mean gradient) >= c improves all tasks iff c < c_crit",
        "larger", assumptions=("to first order", "equal task weights"),
    ),
    GramCertificate(
        "h", partial(_h, "losses"), "mean squared task loss", "smaller", "loss^2", LOSSES
    ),
    GramCertificate(
        "pl_constant", partial(_of, pl_constant, "losses"),
        "mu with |grad h|^2 >= 2 mu h: where it is above 0, a stationary point of h has h = 0",
        "larger", "(loss/parameter)^2", LOSSES, (FULL_RANK, NON_NEGATIVE, "at this point"),
        EXACT,
    ),
    GramCertificate(
        "pl_bound", partial(_of, pl_bound, "losses"),
        "bound on h, the gap to zero loss, by its gradient alone", "smaller", "loss^2", LOSSES,
        (FULL_RANK, NON_NEGATIVE, "at this point"), EXACT,
    ),
    GramCertificate(
        "pl_bound_sqrt", partial(_of, pl_bound, "sqrt"),
        "bound on the mean loss by its gradient alone", "smaller", "loss", SQRT,
        (FULL_RANK, "losses above 0", "at this point"), EXACT,
    ),
    GramCertificate(
        "squared_gradient", partial(_of, squared_gradient, "losses"),
        "|grad h|^2 over the shared parameters", "", "loss^4/parameter^2", LOSSES,
    ),
    GramCertificate(
        "gram_step", partial(_gram_step, phi="losses"),
        "step along -grad h that minimises h with the losses linearised", "",
        "parameter^2/loss^2", LOSSES, ("no curvature: a heuristic", "shared parameters only"),
    ),
    GramCertificate(
        "gram_step_sqrt", partial(_gram_step, phi="sqrt"),
        "step along -(mean gradient) that minimises the mean loss with sqrt(L) linearised", "",
        "parameter^2/loss", SQRT,
        ("no curvature: a heuristic", "losses above 0", "shared parameters only"),
    ),
    GramCertificate(
        "self_bounding_step", _bounding,
        "step along -grad h that lowers h for certain", "", "parameter^2/loss^2", LOSSES,
        (NON_NEGATIVE, "every loss beta-smooth everywhere", "shared parameters only"),
        {"beta": None},
    ),
)  # fmt: skip

GRAM_CERTIFICATES: dict[str, GramCertificate] = {entry.name: entry for entry in ALL}
"""Every certificate of (G, L) by name."""
