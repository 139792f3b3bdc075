"""Certificates as scorers: greater is better, and a ValueError where one is not applicable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from mtlsk.certificates import (
    GRAM_CERTIFICATES,
    GramCertificate,
    condition_number,
    cosine_condition_number,
    min_cosine,
)
from mtlsk.component import closest
from mtlsk.curvature import hessian_shares, reachable_zero
from mtlsk.scorers.inside import rounding_of, unwrap


def _name(entry: GramCertificate) -> str:
    return f"neg_{entry.name}" if entry.better == "smaller" else entry.name


OF_GRAMIAN = {_name(entry): entry for entry in GRAM_CERTIFICATES.values() if entry.better}
"""Certificates of (G, L) of which one value is better than another, by their scorer's name."""

ALWAYS: dict[str, Callable[[Tensor], Any]] = {
    "condition_number": condition_number,
    "cosine_condition_number": cosine_condition_number,
    "min_cosine": min_cosine,
}
"""Those that score every net, as their functions do: a singular Gramian has the worst condition
number, 1 / (K eps), and a single task a smallest cosine of 1."""


def _residual_share(net: Any, X: Any, y: Any, **options: Any) -> float:
    return -hessian_shares(net, X, y, **options).residual_share


def _curvature(net: Any, X: Any, y: Any, **options: Any) -> float:
    return -abs(hessian_shares(net, X, y, **options).hessian.top)


def _reachable_zero(net: Any, X: Any, y: Any, **options: Any) -> float:
    found = reachable_zero(net, X, y, **options)
    if found.value is None:
        raise ValueError(found.reason)
    return -found.value


OF_NET: dict[str, tuple[Callable[..., float], Callable[..., Any], str]] = {
    "neg_residual_share": (
        _residual_share,
        hessian_shares,
        "the share of the residual part S in the Hessian",
    ),
    "neg_curvature": (
        _curvature,
        hessian_shares,
        "the magnitude of the outermost eigenvalue of the Hessian",
    ),
    "neg_reachable_zero": (
        _reachable_zero,
        reachable_zero,
        "the distance within which the net fits every label exactly",
    ),
}
"""Certificates that need more than (G, L): scorer, function with its options, what it is."""


class CertificateScorer:
    """One certificate of the net inside an estimator as a scorer; see make_certificate_scorer."""

    def __init__(self, name: str, **options: Any) -> None:
        names = [*OF_GRAMIAN, *OF_NET]
        if name not in names:
            raise ValueError(
                f"unknown certificate scorer {name!r}{closest(name, names)}; allowed: "
                f"{', '.join(names)}"
            )
        self.name = name
        self.options = options
        allowed = list(self._takes())
        for option in options:
            if option not in allowed:
                raise ValueError(
                    f"{name} has no option {option!r}{closest(option, allowed)}; its options: "
                    f"{', '.join(allowed) or 'none'}"
                )
        sign = "Minus " if name.startswith("neg_") else ""
        what = OF_GRAMIAN[name].meaning if self.of_gramian else OF_NET[name][2]
        self.__doc__ = f"{sign}{what}."

    @property
    def of_gramian(self) -> bool:
        """Whether Gramian and losses are enough."""
        return self.name in OF_GRAMIAN

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Return the score; ValueError with the reason where the certificate is not applicable."""
        net, X, y = unwrap(estimator, X, y)
        if self.of_gramian:
            return self.value(*net.task_gramian(X, y), rounding=rounding_of(net))
        return float(OF_NET[self.name][0](net, X, y, **self.options))

    def value(self, gramian: Tensor, losses: Tensor, *, rounding: float) -> float:
        """Return the score of a Gramian (K, K) and losses (K,), for those that need no more."""
        entry = OF_GRAMIAN[self.name]
        if entry.name in ALWAYS:
            value = float(ALWAYS[entry.name](gramian))
        else:
            known = {"rounding": rounding} if "rounding" in (entry.options or {}) else {}
            value = entry.value(gramian, losses, **{**known, **self.options})
        return -value if entry.better == "smaller" else value

    def _takes(self) -> list[str]:
        if self.of_gramian:
            entry = OF_GRAMIAN[self.name]
            return [] if entry.name in ALWAYS else list(entry.options or {})
        parameters = inspect.signature(OF_NET[self.name][1]).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    def _accept_sample_weight(self) -> bool:
        """Say that scikit-learn need not pass sample_weight."""
        return False

    def __repr__(self) -> str:
        words = "".join(f", {k}={v!r}" for k, v in self.options.items())
        return f"make_certificate_scorer({self.name!r}{words})"


def make_certificate_scorer(name: str, **options: Any) -> CertificateScorer:
    """Return a scorer ``(estimator, X, y) -> float``, greater is better, that can be pickled.

    Parameters
    ----------
    name : str
        One of ``SCORERS`` but ``worst_r2``, or a dearer one: ``"neg_residual_share"`` and
        ``"neg_curvature"`` (options of :func:`mtlsk.curvature.hessian_shares`),
        ``"neg_reachable_zero"`` (of :func:`mtlsk.curvature.reachable_zero`).
    **options
        Of the certificate: ``make_certificate_scorer("neg_ridge_condition_number", ridge=.1)``.

    Raises
    ------
    ValueError
        For an unknown name or option, at once; when called, with the reason, where the
        certificate is not applicable: scikit-learn's ``error_score`` says what becomes of it.
    """
    return CertificateScorer(name, **options)
