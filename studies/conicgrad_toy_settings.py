"""What conicgrad_toy.py runs: methods, ConicGrad's grids, starts, and what counts as arriving."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mtlsk.datasets import TOY_STARTS

LR, STEPS = 1e-3, 50_000
NEAR = 0.05  # of the mean loss: what counts as having reached its minimum
JITTER = 0.5  # of the starts of all seeds but the first
ANGLES = (0.25, 0.5, 0.75, 0.9)
SECONDS = {  # what else ConicGrad's forms have: gamma, or the rate of the online dual
    "printed": (0.001, 0.005, 0.01),
    "flip": (0.001, 0.005, 0.01),
    "exact": (math.nan,),
    "online": (0.025, 0.1, 0.4),
}
C, GAMMA, DUAL_RATE = 0.75, 0.001, 0.1  # where nothing else is said
CLOSED = ("printed", "flip")  # with a dual loop of their own
CAGRAD_C = 0.5
# FAMO takes logarithms of losses above their least values, given below; its authors' toy has these
# and no weight decay of its logits, as the losses do not change from batch to batch
FAMO_BELOW, FAMO_GAMMA = 21.0, 0.0
OTHERS = {
    "LinearScalarization": "LinearScalarization",
    "MGDA": "MGDA",
    "CAGrad": {"name": "CAGrad", "c": CAGRAD_C},
    "NashMTL": "NashMTL",
    "FAMO": {"name": "FAMO", "gamma": FAMO_GAMMA},
}
NAMES = {
    "LinearScalarization": "mean gradient",
    "MGDA": "MGDA",
    "CAGrad": f"CAGrad, c = {CAGRAD_C:g}",
    "NashMTL": "NashMTL",
    "FAMO": "FAMO",
    "printed": "ConicGrad as printed",
    "flip": "ConicGrad, sign flipped",
    "exact": "ConicGrad, exact",
    "online": "ConicGrad, online",
}


class Setting(NamedTuple):
    """One run of five starts; ``gamma_or_rate`` is what SECONDS has for the method."""

    method: str
    c: float | str = math.nan
    gamma_or_rate: float = math.nan
    scale: float = 1.0
    seed: int = 0


def usual(scale=1.0, seed=0):
    """Return one setting a method, in the order of the tables; those of scale 1 are drawn."""
    seconds = {"printed": GAMMA, "flip": GAMMA, "exact": math.nan, "online": DUAL_RATE}
    found = [Setting(method, scale=scale, seed=seed) for method in OTHERS]
    return found + [Setting(form, C, value, scale, seed) for form, value in seconds.items()]


def settings(quick, seeds):
    """Return all settings: every method, scale and seed, then ConicGrad's grids."""
    found = usual() + usual(scale=0.1)
    found += [setting for seed in range(1, seeds) for setting in usual(seed=seed)]
    angles, n = (ANGLES[1:3], 2) if quick else (ANGLES, 3)
    found += [Setting(f, c, s) for f, own in SECONDS.items() for c in angles for s in own[:n]]
    found.append(Setting("exact", "auto"))
    return list({str(setting): setting for setting in found}.values())


def kind(setting):
    """Return what is stepped together: closed forms, FAMO, or what is asked one by one."""
    return "closed" if setting.method in CLOSED else "FAMO" * (setting.method == "FAMO")


def grouped(wanted, most=5):
    """Return lists of settings that are stepped together: of one scale and one kind.

    Those asked one by one are dealt into lists of ``most``: what a list found is kept.
    """
    lists = {}
    for s in wanted:
        lists.setdefault((kind(s), s.scale), []).append(s)
    dealt = []
    for (together, _), own in lists.items():
        n = 1 if together else -(-len(own) // most)
        dealt += [own[i::n] for i in range(n)]
    return dealt


def starts(seed):
    """Return the published starts (5, 2); of other seeds than 0, moved by normal steps."""
    published = np.array(TOY_STARTS)
    moved = np.random.default_rng(seed).normal(size=published.shape)
    return published + (JITTER * moved if seed else 0.0)
