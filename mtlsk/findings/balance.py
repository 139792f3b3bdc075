"""Whether fixed weights are enough, what is left to gain, and who has the weight."""

from __future__ import annotations

import math

import numpy as np
import torch

from mtlsk.certificates import balancing_scale, condition_number, critical_cone
from mtlsk.findings.measured import SHOWN, Finding, Measured, named, significant

COLLAPSED = 0.9
"""Share of all task weights on one task from which the others hardly take part."""
STATIONARY = 0.05
"""Share of its own steepest descent that the best common direction leaves the worst task; below it
a step for all is twenty times slower than one for that task alone."""
SCALES = 10.0
"""Ratio of gradient lengths from which the shorter one is a tenth of a sum, or less."""
HARM = 1e-4
"""Cosine with the mean gradient below which, with a minus, a task is said to lose: float32 noise
is smaller."""


def harmed(m: Measured) -> list[int]:
    """Return the tasks that the mean gradient hurts, the worst first."""
    tasks = [k for k in m.alive if m.mean_cosines[k] < -HARM]
    return sorted(tasks, key=lambda k: float(m.mean_cosines[k]))


def scalarization(m: Measured) -> Finding:
    """Say whether fixed weights are enough at this point."""
    losers = harmed(m)
    if not losers:
        k = min(m.alive, key=lambda k: float(m.mean_cosines[k]))
        sentence = (
            "Equal weights are enough here: the mean gradient conflicts with no task; the "
            f"smallest cosine with it is {m.mean_cosines[k]:.2f}, of {m.name(k)}."
        )
        return Finding("scalarization", sentence)
    weights, share = m.common
    shown = ", ".join(f"{m.name(k)} ({m.mean_cosines[k]:.2f})" for k in losers[:SHOWN])
    more = f" and {len(losers) - SHOWN} more" if len(losers) > SHOWN else ""
    sentence = (
        "A step along the mean gradient raises losses (with its cosine with the task's own): "
        f"{shown}{more}. "
    )
    if share < STATIONARY:
        sentence += "No weights lower every task noticeably: this is a trade-off."
        return Finding("scalarization", sentence)
    rounded = significant(weights)
    sentence += (
        f"Weights that lower every task exist (c_crit = {critical_cone(m.seen):.2f}): "
        f"{named(m, rounded)}, so scalarization is enough at this point, though not "
        "with equal weights; further on others may be."
    )
    params = {"aggregator": "LinearScalarization", "aggregator__weights": rounded}
    return Finding("scalarization", sentence, params)


def stationarity(m: Measured) -> Finding:
    """Say how near the net is to a Pareto-stationary point."""
    weights = np.full(len(m.names), 1 / len(m.names))
    mean = math.sqrt(max(float(weights @ m.seen.numpy() @ weights), 0.0))
    ratio = mean / float(m.norms[m.alive].mean())
    _, share = m.common
    lengths = f"|g0| is {ratio:.2g} of the mean |g_k|"
    if share < STATIONARY:
        sentence = (
            "The net is near a Pareto-stationary point: the best direction for all leaves some "
            f"task {share:.1%} of what its own gradient gives ({lengths}). What is left is a "
            "trade-off: say by task_scale which tasks matter, or train a ScalarizationFront."
        )
    else:
        sentence = (
            "The net is not Pareto-stationary: one direction gives every task "
            f"{share:.0%} or more of the progress of its own gradient ({lengths})."
        )
    return Finding("stationarity", sentence)


def scales(m: Measured) -> Finding:
    """Say whether the lengths of the gradients differ, and which scales make them equal."""
    long = max(m.alive, key=lambda k: float(m.norms[k]))
    short = min(m.alive, key=lambda k: float(m.norms[k]))
    ratio = float(m.norms[long] / m.norms[short])
    lengths = (
        f"{m.name(long)} has the longest gradient ({m.norms[long]:.2g}), {m.name(short)} the "
        f"shortest ({m.norms[short]:.2g})"
    )
    if ratio < SCALES:
        sentence = f"Gradient lengths are within a factor of {ratio:.1f}: {lengths}."
        return Finding("scales", sentence)
    balanced = balancing_scale(m.seen).numpy() * (1.0 if m.scale is None else np.array(m.scale))
    factors = significant(balanced * len(balanced) / balanced.sum())
    s = torch.tensor(factors, dtype=torch.float64)
    before, after = (condition_number(g) for g in (m.seen, m.gramian * s[:, None] * s))
    sentence = (
        f"Gradient lengths differ by a factor of {ratio:.0f}: {lengths}; equal weights mostly "
        f"follow the longest. task_scale = {named(m, factors)} makes them equal "
        f"(kappa {before:.2g} -> {after:.2g})."
    )
    return Finding("scales", sentence, {"task_scale": factors})


def weights(m: Measured) -> list[Finding]:
    """Say whether one task has nearly all the weight, in training or in MGDA's solution."""
    found = []
    trained = [row["task_weights"] for row in m.history if row.get("task_weights")]
    if trained and len(trained[-1]) == len(m.names):
        share = np.abs(trained[-1]) / max(float(np.abs(trained[-1]).sum()), 1e-300)
        top = int(share.argmax())
        if share[top] > COLLAPSED:
            sentence = (
                f"The training's task weights have collapsed: in its last epoch {m.name(top)} had "
                f"{share[top]:.0%} of them on average."
            )
            found.append(Finding("weights", sentence))
    top = int(m.dual.argmax())
    longest = float(m.norms[m.alive].max() / m.norms[top])
    if m.dual[top] > COLLAPSED and longest >= 2:  # of equal ones any weights do
        sentence = (
            f"MGDA's min-norm weights put {m.dual[top]:.0%} on {m.name(top)}, whose gradient "
            f"is {longest:.2g} times shorter than the longest: MGDA as it is would follow that "
            "task alone; normalized gradients would not."
        )
        params = {"aggregator": "MGDA", "aggregator__normalization": "l2"}
        found.append(Finding("weights", sentence, params))
    return found
