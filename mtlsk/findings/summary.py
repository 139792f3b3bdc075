"""All findings about one measurement, the measurement first and what to try last."""

from __future__ import annotations

from mtlsk.certificates import critical_cone
from mtlsk.findings.balance import (
    SCALES,
    STATIONARY,
    harmed,
    scalarization,
    scales,
    stationarity,
    weights,
)
from mtlsk.findings.conflicts import conflict, record
from mtlsk.findings.measured import SHOWN, Finding, Measured

STUDIED = (
    "in studies/beyond_scalarization no aggregator beat fixed weights that make up for the scales, "
    "with a tuned learning rate"
)
"""What all aggregators on eleven settings came to; its test compares this with the report."""


def findings(m: Measured) -> tuple[Finding, ...]:
    """Return what there is to say, the measurement first and what to try last."""
    found = [measured(m)]
    if len(m.names) == 1:
        sentence = (
            "There is one task: nothing can conflict, and every aggregator takes its gradient."
        )
        return (*found, Finding("conflict", sentence))
    if m.n_shared == 0:
        sentence = "The tasks share no parameters: nothing can conflict."
        return (*found, Finding("conflict", sentence))
    dead = [k for k in range(len(m.names)) if k not in m.alive]
    if dead:
        which = m.some(dead)
        sentence = f"The gradient of {which} is zero: the shared parameters do not move "
        sentence += "it, and it takes no part in what follows."
        found.append(Finding("zero gradient", sentence))
    if len(m.alive) < 2:
        sentence = "Fewer than two tasks have a gradient: nothing can conflict."
        return (*found, Finding("conflict", sentence))
    found += [conflict(m), *record(m), scalarization(m), stationarity(m), scales(m), *weights(m)]
    return (*found, what_to_try(m))


def measured(m: Measured) -> Finding:
    """Say on what everything else rests."""
    sentence = (
        f"Measured on the {m.n_rows} rows given, in evaluation mode, over {m.n_shared} shared "
        "parameters of the net as it is now; what is said of steps holds to first order, for "
        "small ones."
    )
    partly = [k for k, n in enumerate(m.labelled) if n < m.n_rows]
    if partly:
        shown = ", ".join(f"{m.name(k)} {m.labelled[k]}" for k in partly[:SHOWN])
        more = f", and {len(partly) - SHOWN} more tasks" if len(partly) > SHOWN else ""
        sentence += f" Rows with a label, where not all have one: {shown}{more}."
    if m.scale is not None:
        sentence += " Findings have task_scale applied, certificates have not."
    return Finding("measured", sentence)


def what_to_try(m: Measured) -> Finding:
    """Name the one thing to try first."""
    ratio = float(m.norms[m.alive].max() / m.norms[m.alive].min())
    _, share = m.common
    judge = "judge it by held-out scores, against equal weights with a tuned learning rate."
    if ratio >= SCALES:
        params = scales(m).params
        sentence = f"Try task_scale first, as above ({STUDIED}), and {judge}"
        return Finding("try", sentence, params)
    if share < STATIONARY:
        sentence = (
            "Try a ScalarizationFront, or other task_scale: no aggregator can improve all tasks "
            f"noticeably here; {judge}"
        )
        return Finding("try", sentence)
    if harmed(m):
        critical = critical_cone(m.seen)
        params = {"aggregator": "ConicGrad", "aggregator__c": "auto"}
        sentence = (
            f"Try aggregator='ConicGrad' with c='auto', a cone below c_crit ({critical:.2f} here) "
            "in every step, so that every task improves where that is possible. Expect little "
            f"({STUDIED}); {judge}"
        )
        return Finding("try", sentence, params)
    sentence = (
        "Nothing here asks for another aggregator than equal weights "
        "(aggregator='LinearScalarization'), the cheapest there is."
    )
    return Finding("try", sentence, {"aggregator": "LinearScalarization"})
