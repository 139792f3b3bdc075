"""Which pairs of tasks conflict, and since when."""

from __future__ import annotations

import math
from typing import Any

from mtlsk.findings.measured import SHOWN, Finding, Measured

CONFLICT = -0.1
"""Cosine below which two tasks conflict: a small step along one's gradient that lowers its loss by
1 raises the other's (of equal gradient length) by more than .1. Nearer to 0 is no matter."""


def conflicting(m: Measured) -> list[tuple[int, int]]:
    """Return the pairs of tasks whose cosine is below ``CONFLICT``, the worst first."""
    pairs = [(i, j) for i in m.alive for j in m.alive if i < j]
    worst = [pair for pair in pairs if float(m.cosines[pair]) < CONFLICT]
    return sorted(worst, key=lambda pair: float(m.cosines[pair]))


def conflict(m: Measured) -> Finding:
    """Say which pairs of tasks conflict, and since when."""
    pairs, n = conflicting(m), len(m.alive) * (len(m.alive) - 1) // 2
    if not pairs:
        everyone = [(i, j) for i in m.alive for j in m.alive if i < j]
        i, j = min(everyone, key=lambda pair: float(m.cosines[pair]))
        sentence = (
            f"No pair of tasks conflicts: the smallest of {n} cosines between gradients is "
            f"{float(m.cosines[i, j]):.2f}, of {m.name(i)} and {m.name(j)} (a conflict is one "
            f"below {CONFLICT:g})."
        )
        return Finding("conflict", sentence)
    shown = "; ".join(
        f"{m.name(i)} and {m.name(j)} {float(m.cosines[i, j]):.2f}{when(m, i, j)}"
        for i, j in pairs[:SHOWN]
    )
    more = f"; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    verb = "conflicts" if len(pairs) == 1 else "conflict"
    sentence = (
        f"{len(pairs)} of {n} pairs of tasks {verb}, with a cosine between their gradients below "
        f"{CONFLICT:g}: {shown}{more}."
    )
    return Finding("conflict", sentence)


def recorded(m: Measured) -> list[tuple[int, Any]]:
    """Return (epoch, cosines (K, K)) of the epochs with a record, the steps' or ConflictLog's."""
    k = len(m.names)
    rows = [
        (row.get("epoch", i + 1), row.get("cosines", row.get("logged_cosines")))
        for i, row in enumerate(m.history)
    ]
    return [(int(epoch), c) for epoch, c in rows if c is not None and len(c) == k]


def when(m: Measured, i: int, j: int) -> str:
    """Say since which epoch of the training a pair conflicts, in its batches' mean cosine."""
    known = recorded(m)
    values = [(epoch, float(c[i][j])) for epoch, c in known if math.isfinite(float(c[i][j]))]
    if not known:
        return ""
    if not values:
        return " (in training there was nothing to compare)"
    last, value = values[-1]
    if value >= CONFLICT:
        return f" (but {value:.2f} in training, at epoch {last})"
    since = last
    for epoch, value in reversed(values):
        if value >= CONFLICT:
            break
        since = epoch
    return (
        " (in training from the first epoch)"
        if since == values[0][0]
        else (f" (in training since epoch {since})")
    )


def record(m: Measured) -> list[Finding]:
    """Say that the training kept no record, and how to get one."""
    if not m.history or recorded(m):
        return []
    sentence = (
        "history_ has no record of cosines, so since when tasks conflict is not known. Training "
        "keeps one where the whole Gramian is computed: aggregator='ConicGrad' with c=1 and "
        "gramian='auto' takes the step of equal weights and does; so does the callback "
        "mtlsk.ConflictLog for any aggregator."
    )
    params = {"aggregator": "ConicGrad", "aggregator__c": 1.0, "gramian": "auto"}
    return [Finding("record", sentence, params)]
