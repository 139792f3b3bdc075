"""certify: everything that can be said of a fitted net on some rows, in one call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from mtlsk.certificate_report import CertificateReport
from mtlsk.certificates import Certificate, gram_certificates
from mtlsk.curvature import (
    hessian_shares,
    levi_certificates,
    moment_correlation,
    reachable_zero,
)
from mtlsk.curvature.hessian import OBJECTIVES
from mtlsk.descent import split_parameters
from mtlsk.findings import Measured, findings
from mtlsk.modules import HolomorphicSharing
from mtlsk.scorers import rounding_of, unwrap
from mtlsk.scorers.inside import names_of


def certify(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    beta: float | None = None,
    curvature: bool = False,
    lipschitz: float | str = "bound",
) -> CertificateReport:
    """Return what the task gradients of a fitted net say on X and y, and what to try.

    Losses and gradients are those of the net inside ``estimator`` on the rows given, in evaluation
    mode, y as the net sees it. It costs about K backward passes over the rows.

    Parameters
    ----------
    estimator : fitted mtlsk net
        Alone or in a Pipeline, TransformedTargetRegressor or search.
    X, y : as for ``fit``
        Training or held-out rows; NaN in y is a missing label.
    beta : float or None
        Smoothness of every task loss, which the self-bounding step needs.
    curvature : bool
        Add the Hessian's shares and outermost eigenvalue, the correlation of the optimizer's
        second moment with the Gauss-Newton diagonal (on a bounded number of rows), and for few
        rows the distance within which there is an exact fit.
    lipschitz : "bound", "estimated" or float
        For that distance, see :func:`mtlsk.curvature.reachable_zero`.

    Raises
    ------
    TypeError
        If there is no mtlsk net inside.
    ValueError
        For wrong input, or a net that has diverged.

    Examples
    --------
    >>> from mtlsk import MultiTaskRegressor, certify
    >>> from mtlsk.datasets import make_arm
    >>> arm = make_arm(200, random_state=0)
    >>> y = (arm.target - arm.target.mean()) / arm.target.std()
    >>> net = MultiTaskRegressor(max_epochs=3, random_state=0).fit(arm.data, y)
    >>> report = certify(net, arm.data, y)
    >>> report["critical_cone"].applicable
    True
    """
    net, inner_X, inner_y = unwrap(estimator, X, y)
    gramian, losses = net.task_gramian(inner_X, inner_y)
    shared, _ = split_parameters(net.module_, len(losses))
    there = pd.DataFrame(inner_y).notna().to_numpy()
    known = tuple(gram_certificates(gramian, losses, beta=beta, rounding=rounding_of(net)))
    scale = net.task_map_.scale
    measured = Measured(
        names=tuple(names_of(net, y, len(losses))),  # a TransformedTargetRegressor hides y's
        gramian=gramian,
        losses=losses,
        labelled=tuple(int(n) for n in there.sum(0)),
        n_rows=len(there),
        n_shared=sum(p.numel() for p in shared),
        scale=None if scale is None else tuple(scale),
        history=tuple(net.history_ or ()),
        aggregator=type(net.aggregator_).__name__,
    )
    more = tuple(_curvature(net, inner_X, inner_y, lipschitz)) if curvature else ()
    names = pd.Index(measured.names, name="task")
    tasks = {
        "labelled": list(measured.labelled),
        "loss": losses.numpy(),
        "gradient_norm": np.sqrt(np.maximum(gramian.diagonal().numpy(), 0.0)),
        "cosine_with_mean": measured.mean_cosines,
        "min_norm_weight": measured.dual,
    }
    return CertificateReport(
        tasks=pd.DataFrame(tasks, index=names),
        cosines=pd.DataFrame(measured.cosines.numpy(), index=names, columns=names),
        certificates=known + more,
        findings=findings(measured),
        n_rows=measured.n_rows,
    )


def _curvature(net: Any, X: Any, y: Any, lipschitz: float | str) -> Iterator[Certificate]:
    """Yield the certificates and diagnoses that need more than a Gramian."""
    for objective, phi in OBJECTIVES.items():
        known = (f"objective: {phi}", "evenly spaced rows of those given, 1024 at most")
        unit = "loss^2/parameter^2" if objective == "h" else "loss/parameter^2"
        try:
            shares = hessian_shares(net, X, y, objective=objective)
            share, estimated = shares.residual_share, not shares.exact
        except ValueError as error:
            for name in (f"residual_share_{objective}", f"curvature_{objective}"):
                yield Certificate(name, None, assumptions=known, reason=str(error))
            continue
        yield Certificate(
            f"residual_share_{objective}",
            share,
            assumptions=known,
            estimated=estimated,
            meaning="|S|_F / (|GN|_F + |S|_F), the part of the Hessian that J does not show",
        )
        yield Certificate(
            f"curvature_{objective}",
            shares.hessian.top,
            unit,
            assumptions=(*known, "by Lanczos where there are many parameters"),
            meaning="eigenvalue of the Hessian of largest magnitude, over all parameters",
        )
    name = "moment_correlation"
    about: dict[str, Any] = {
        "meaning": "Spearman correlation of the optimizer's second moment with the diagonal of GN",
        "assumptions": (
            "a diagnosis: mostly an effect of small batches",
            "GN of the mean task loss on evenly spaced rows of those given, 256 at most",
        ),
    }
    try:
        yield Certificate(name, moment_correlation(net, X, y)[0], **about)
    except ValueError as error:
        yield Certificate(name, None, reason=str(error), **about)
    yield reachable_zero(net, X, y, lipschitz=lipschitz)
    if isinstance(net.module_, HolomorphicSharing):
        yield from levi_certificates(net, X, y)
