"""Whether there is an exact fit of a few rows near the parameters at hand."""

from __future__ import annotations

from typing import Any

from mtlsk.certificates import Certificate, Kantorovich, kantorovich
from mtlsk.curvature.copy64 import copy_of
from mtlsk.curvature.lipschitz import (
    estimated_lipschitz,
    kink_in,
    lipschitz_bound,
    residual_jacobian,
)
from mtlsk.modules import CRITERIA

MAX_RESIDUALS = 2048
"""Residuals (labelled rows times outputs) up to which J is held and decomposed."""
NAME = "reachable_zero"
PHI = "signed residuals f_k(x_i) - y_ik"
MEANING = "an exact fit of all these labels lies within this distance of the parameters"


def reachable_zero(
    net: Any, X: Any, y: Any, *, lipschitz: float | str = "bound", seed: int = 0
) -> Certificate:
    """Return the radius rho within which the net fits every label of X and y exactly.

    Kantorovich's theorem (:func:`mtlsk.certificates.kantorovich`) for Phi_ik = f_k(x_i) - y_ik,
    one a labelled row and task, over all trainable parameters, in float64 and evaluation mode. It
    is for few rows: with more residuals than parameters, or further away than the theorem reaches,
    the answer is "not applicable", which says nothing about whether there is such a fit.

    Parameters
    ----------
    net : MultiTaskNet
        Fitted, regression tasks only.
    X, y : as for ``fit``
    lipschitz : "bound", "estimated" or float
        L_J of the theorem: ``"bound"`` derives one that holds (default module, smooth activation);
        a number is taken at your word; ``"estimated"`` samples it, and the result is marked
        ``estimated``: **no certificate**.
    seed : int
        Of the samples.

    Raises
    ------
    ValueError
        For wrong input. Everything outside the theorem is a certificate that is not applicable.
    """
    if isinstance(lipschitz, str) and lipschitz not in ("bound", "estimated"):
        raise ValueError(
            f"lipschitz={lipschitz!r} is not allowed; use 'bound', 'estimated' or a number"
        )
    estimated = lipschitz == "estimated"
    words = {"bound": "derived from the weights", "estimated": "ESTIMATED by sampling"}
    source = words.get(str(lipschitz), "given, not checked")
    assumptions = ["J of full row rank", f"J Lipschitz on the ball: L_J {source}"]
    try:
        found, kink = _find(net, X, y, lipschitz, seed)
    except ValueError as error:
        reason = str(error)
        return Certificate(
            NAME, None, "parameter", PHI, tuple(assumptions), reason, estimated, MEANING
        )
    if kink is not None:
        assumptions.append(f"no {kink} unit changes sides within the ball")
    return Certificate(
        NAME, found.radius, "parameter", PHI, tuple(assumptions), "", estimated, MEANING
    )


def _find(
    net: Any, X: Any, y: Any, lipschitz: float | str, seed: int
) -> tuple[Kantorovich, str | None]:
    copy = copy_of(net, X, y, max_rows=None)
    numeric = CRITERIA["regression"]
    for task in net.tasks_:
        if task.kind != "regression" or task.criterion not in numeric.values():
            raise ValueError(
                f"task {task.name!r} is no regression by {', '.join(numeric)}: it has no signed "
                "residual whose zero is the loss's"
            )
    labelled = ~copy.y.isnan()
    count = int(labelled.sum())
    if count > copy.size:
        raise ValueError(
            f"there are {count} residuals (labelled rows times tasks) and only {copy.size} "
            "parameters: take fewer rows or a wider net"
        )
    if count > MAX_RESIDUALS:
        raise ValueError(
            f"{count} residuals are more than the {MAX_RESIDUALS} whose Jacobian is held; "
            "give fewer rows"
        )
    kink = kink_in(copy.module)
    if kink is not None and lipschitz in ("bound", "estimated"):
        raise ValueError(
            f"the module has kinks ({kink}), where J jumps: no L_J exists; train with a smooth "
            "activation such as 'tanh', or give lipschitz=... for a ball without a kink"
        )
    phi = (copy.outputs() - copy.y)[labelled].detach()
    jacobian = residual_jacobian(copy, labelled)
    flat = kantorovich(jacobian, phi, 0.0)  # of a J that does not change
    radius = 2 * flat.step  # the theorem's largest
    if radius == 0:
        return flat, kink
    if lipschitz == "bound":
        lipschitz = lipschitz_bound(copy, labelled.any(1), radius)
    elif lipschitz == "estimated":
        lipschitz = estimated_lipschitz(copy, labelled, radius, seed=seed)
    return kantorovich(jacobian, phi, float(lipschitz)), kink
