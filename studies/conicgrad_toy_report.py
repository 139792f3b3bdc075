"""What conicgrad_toy.py found, as text and pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from common import rows_of, with_spread
from conicgrad_toy_settings import (
    CLOSED,
    DUAL_RATE,
    FAMO_BELOW,
    FAMO_GAMMA,
    GAMMA,
    JITTER,
    NAMES,
    NEAR,
    SECONDS,
    C,
    Setting,
    usual,
)
from matplotlib.figure import Figure

from mtlsk.datasets import TOY_STARTS, toy_losses, toy_minimum
from mtlsk.drawing import COLOURS

AXIS = np.linspace(-11, 11, 441)
SOONER = 0.9  # of another's steps: what counts as faster, ours
CLAIMED = {"CAGrad": 5, "NashMTL": 3}  # of five starts, beside ConicGrad's five


def field(scale):
    """Return the losses (441, 441, 2) on a grid of the plane."""
    return toy_losses(torch.tensor(np.stack(np.meshgrid(AXIS, AXIS), axis=-1)), scale).numpy()


def on_front(points):
    """Return for each point (n, 2) whether no point of the grid lowers both losses by over NEAR.

    Losses are those of scale 1: the front does not depend on the unit of a loss.
    """
    rivals = field(1.0).reshape(-1, 2)
    own = toy_losses(torch.tensor(np.asarray(points)), 1.0).numpy()
    return np.array([not (rivals < end - NEAR).all(1).any() for end in own])


def runs_of(ends, wanted):
    """Return the rows of some settings."""
    keys = pd.DataFrame(wanted).astype({"c": str})
    return ends.merge(keys, on=list(Setting._fields), how="inner")


def of(ends):
    """Return "x of y": how many ends are at the minimum of the mean."""
    return f"{(ends.above <= NEAR).sum()} of {len(ends)}"


def summary(runs):
    """Return a row a method: its ends, steps and lengths."""
    rows = []
    for method, name in NAMES.items():
        own = runs[runs.method == method]
        there = own[own.above <= NEAR]
        steps = f"{there.arrived.median():.0f}" if len(there) else "-"
        way = f"{there.length.mean():.1f}" if len(there) else "-"
        front = on_front(own[["x1", "x2"]])
        rows.append([
            name, of(own), f"{front.sum()} of {len(own)}", f"{own.above.median():.3f}",
            f"{own.above.max():.3f}", steps, way, f"{own.length.mean():.1f}",
            f"{own.straight.mean():.1f}",
        ])  # fmt: skip
    titles = ["method", "reach the minimum", "end on the front", "above it: median", "largest"]
    titles += ["steps to it", "way of those", "way of all", "straight"]
    return rows_of(titles, rows)


def moved(runs):
    """Return the table of all seeds: how many of five starts reach the minimum."""
    rows = []
    for method, name in NAMES.items():
        by_seed = runs[runs.method == method].groupby("seed")
        counts = by_seed.above.agg(lambda above: (above <= NEAR).sum())
        rows.append([name, *counts, with_spread(counts, 1), with_spread(by_seed.length.mean(), 1)])
    seeds = [f"seed {seed}" for seed in sorted(runs.seed.unique())]
    return rows_of(["method", *seeds, "of 5, mean", "way of all"], rows)


def grid(ends, form, second):
    """Return a table c x ``second`` of one form: how many reach the minimum, largest loss above."""
    own = ends[(ends.method == form) & (ends.scale == 1) & (ends.seed == 0)]
    columns = sorted(own.gamma_or_rate.dropna().unique()) or [np.nan]
    rows = []
    for c in sorted(own.c.unique()):
        cells = [own[(own.c == c) & ((own.gamma_or_rate == s) | np.isnan(s))] for s in columns]
        rows.append([c, *(f"{of(cell)} ({cell.above.max():.3f})" for cell in cells)])
    return rows_of(["c", *(f"{second} = {s:g}" if second else "reach it" for s in columns)], rows)


def faster(runs, form):
    """Return how many times the steps of others a form takes, where both arrive, and whether less.

    "Faster" is a median ratio below SOONER beside every other.
    """
    ratios = {}
    own = runs[runs.method == form].set_index(["seed", "start"]).sort_index()
    for method, name in NAMES.items():
        other = runs[runs.method == method].set_index(["seed", "start"]).sort_index()
        both = (own.above <= NEAR) & (other.above <= NEAR)
        if method != form and both.any():
            ratio = (own.arrived[both] / other.arrived[both]).median()
            ratios[f"{name} (of {both.sum()})"] = ratio
    if not ratios:
        return f"{NAMES[form]} arrives with no other"
    word = "faster than all of them" if max(ratios.values()) < SOONER else "not faster than all"
    each = ", ".join(f"{ratio:.2f} of {name}" for name, ratio in ratios.items())
    return (
        f"{NAMES[form]} is {word}: its steps to the minimum are, in median over the starts where "
        f"both arrive, these times those of others: {each}"
    )


def verdict(runs):
    """Return the verdict on the claims, from the runs of the published starts at one scale."""
    found = {method: of(runs[runs.method == method]) for method in NAMES}
    others = ", ".join(f"{NAMES[m]} {found[m]} ({n} claimed)" for m, n in CLAIMED.items())
    ours = ", ".join(f"{NAMES[form]} {found[form]}" for form in SECONDS if form != "printed")
    famo = on_front(runs[runs.method == "FAMO"][["x1", "x2"]])
    return (
        f"who reaches the minimum of the mean: the paper's form as printed {found['printed']} (5 "
        f"claimed), our readings of it {ours}; {others}; FAMO ends on the front from "
        f"{famo.sum()} of {len(famo)} (5 claimed). Much faster is claimed; "
        f"{faster(runs, 'exact')}."
    )


def drawn_paths(ways, out):
    """Draw every method's ways over the contours of the mean loss; nine panels."""
    figure = Figure(figsize=(9, 9), layout="constrained")
    means, (minimum, _) = field(1.0).mean(-1), toy_minimum()
    for axes, (method, name) in zip(figure.subplots(3, 3).flat, NAMES.items(), strict=True):
        axes.contour(AXIS, AXIS, means, levels=14, cmap="Greys", linewidths=0.4)
        for n, begin in enumerate(TOY_STARTS):
            axes.plot(*ways[method][:, n, :2].T, color=COLOURS[n], lw=1.6)
            axes.plot(*ways[method][-1, n, :2], "o", color=COLOURS[n], mec="white", ms=6)
            axes.plot(*begin, "ko", ms=4)
        axes.plot(*minimum, "k*", mfc="white", ms=13)
        axes.set(title=name, xlim=(-11, 11), ylim=(-11, 11), xlabel="x1", ylabel="x2")
        axes.label_outer()
    figure.suptitle("black: start; ring: end; star: minimum of the mean loss (grey contours)")
    figure.savefig(out / "paths.png", dpi=75)


def drawn_means(ways, steps, out):
    """Draw how far above the minimum the mean loss is, a panel a start."""
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    lowest = toy_minimum()[1]
    for n, axes in enumerate(figure.subplots(1, 5, sharey=True)):
        for place, (method, name) in enumerate(NAMES.items()):
            if method == "printed":  # it stays above the picture
                continue
            above = np.maximum(ways[method][:, n, 2] - lowest, 1e-6)
            style = {"ls": "--" if method in SECONDS else "-", "color": COLOURS[place % 7]}
            axes.semilogy(np.linspace(0, steps, len(above)), above, label=name, **style)
        axes.axhline(NEAR, color="grey", lw=0.8)
        axes.set(title=f"from {TOY_STARTS[n]}", xlabel="step")
    figure.axes[0].set(ylabel="mean loss above its minimum")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=8)
    figure.savefig(out / "means.png", dpi=75)


def page(ends, ways, steps, out):
    """Return the paragraphs of the report and draw its pictures."""
    ends = ends.assign(c=ends.c.astype(float, errors="ignore").astype(str))
    drawn_paths(ways, out)
    drawn_means(ways, steps, out)
    seeds = sorted(ends.seed.unique())
    published, small = runs_of(ends, usual()), runs_of(ends, usual(scale=0.1))
    every = runs_of(ends, [s for seed in seeds for s in usual(seed=int(seed))])
    again = len(seeds) - 1
    return [
        "**Claimed** (arXiv 2502.00217, figure 1): from five starts ConicGrad and CAGrad reach the "
        "minimum of the mean loss from all, NashMTL from three, FAMO reaches the front from all, "
        "and ConicGrad is much faster than the others.",
        "**Run**: the five starts of the published pictures, first loss at scale 1 and .1 (the "
        f"sources differ); at scale 1 again from starts moved by normal steps of {JITTER:g}, "
        f"{again} times (nothing else here is random). ConicGrad in four forms: as printed "
        "and with the sign of D flipped, both with the dual loop of the paper as we read it "
        f"(gamma = {GAMMA:g}); and, ours, the exact constrained maximiser and the online dual "
        f"(rate {DUAL_RATE:g}) on the exact Gramian; c = {C:g} where nothing else is said. Which c "
        "the source gave CAGrad and itself in its figure we do not know. FAMO "
        f"sees how far losses are above -{FAMO_BELOW:g} times their scale, with gamma = "
        f"{FAMO_GAMMA:g}, as in its authors' own toy. *Reach*: at most {NEAR} above the minimum at "
        f"the end. *On the front*: no point of a grid (step .05) lowers both losses by more than "
        f"{NEAR}, at scale 1. *Steps to it*: median of the first such step, of those that reach "
        "it. *Way*: the length of the trajectory, *straight*: from its start to its end; means.",
        "## From the published starts, scale 1",
        summary(published),
        "![ways](paths.png)",
        "![mean loss](means.png)",
        f"**Verdict** at scale 1: {verdict(published)}",
        "## From the published starts, scale .1",
        summary(small),
        f"**Verdict** at scale .1: {verdict(small)}",
        "## From moved starts, scale 1",
        "Seed 0 has the published starts; ± is over the seeds.",
        moved(every),
        f"Over all {len(seeds)} seeds {faster(every, 'exact')}.",
        "## c and gamma",
        "How many of the five published starts reach the minimum at scale 1, and in brackets the "
        "largest mean loss above it.",
        "As printed:",
        grid(ends, "printed", "gamma"),
        "Sign flipped:",
        grid(ends, "flip", "gamma"),
        "Exact (it has no gamma; auto: its default share of the critical cosine):",
        grid(ends, "exact", ""),
        "Online (the rate of its dual weights):",
        grid(ends, "online", "rate"),
        f"**Verdict**: {of_grid(ends)}",
    ]


def of_grid(ends):
    """Return what c and gamma do, from the grids."""
    at = ends[(ends.scale == 1) & (ends.seed == 0)]
    said = ", ".join(f"{NAMES[form]} {of(at[at.method == form])}" for form in SECONDS)
    flip = at[at.method == CLOSED[1]]
    decays = flip.pivot_table(index=["c", "start"], columns="gamma_or_rate", values="above")
    apart = (decays.max(axis=1) - decays.min(axis=1)).max()
    return (
        f"trajectories of the whole grid that reach the minimum: {said}; gamma moves an end of "
        f"the flipped form by up to {apart:.3f} of mean loss."
    )
