"""The pictures of studies/apt.py."""

from __future__ import annotations

import numpy as np
from apt_parts import BATCHES, HOSTS, RHOS
from matplotlib.figure import Figure

from mtlsk.drawing import COLOURS, MARKERS


def draw_arms(cells, path):
    """Draw each comparison's mean difference and 95 % interval, a panel a data set."""
    names = list(dict.fromkeys(c[0] for c in cells))
    tall = max(sum(c[0] == n for c in cells) for n in names)
    figure = Figure(
        figsize=(3.4 * len(names) + 1.5, 0.19 * tall + 1.6), dpi=110, layout="constrained"
    )
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = [c for c in cells if c[0] == name]
        for place, (_, optimizer, _, mean, half) in enumerate(own):
            i = list(HOSTS).index(optimizer)
            axes.errorbar(mean, place, xerr=half, fmt=MARKERS[i], color=COLOURS[i], ms=5, capsize=2)
        axes.axvline(0, color="0.5", lw=1)
        axes.set_yticks(range(len(own)), [f"{c[1]} {c[2]}" for c in own], fontsize=7)
        axes.set(title=name, xlabel="change of Delta_m% by APT")
        axes.invert_yaxis()
    figure.suptitle("Left of 0 APT is better; bars are 95 % intervals by t over seeds")
    figure.savefig(path)


def draw_shares(means, found, threshold, path):
    """Draw the instant gradient's share, with and without APT."""
    figure = Figure(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    optimizers = list(dict.fromkeys(key[0] for key in means))
    for shift, arm, colour in ((-0.2, "plain", COLOURS[0]), (0.2, "APT", COLOURS[1])):
        places = np.arange(len(optimizers)) + shift
        axes.bar(places, [means[o, arm][1] for o in optimizers], 0.38, color=colour, label=arm)
        axes.plot(places, [means[o, arm][0] for o in optimizers], "D", color="black", ms=5)
        for place, o in zip(places, optimizers, strict=True):
            runs = [run[1] for run in found[o, arm]]
            axes.plot([place] * len(runs), runs, ".", color="0.7", ms=4)
    axes.plot([], [], "D", color="black", ms=5, label="its coefficient")
    axes.axhline(threshold, color="0.5", ls="--", lw=1)
    axes.set_xticks(range(len(optimizers)), optimizers)
    axes.set(ylabel="share of the update", title="Share of the instant gradient in the update")
    axes.legend()
    figure.savefig(path)


def draw_preservation(found, path):
    """Draw effective rank, worst task's cosine and test R2 against rho, a line a batch size."""
    figure = Figure(figsize=(10, 3.3), dpi=110, layout="constrained")
    titles = {1: "effective rank", 3: "worst task's cosine with the update", 4: "test R2"}
    for axes, (i, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for colour, marker, batch in zip(COLOURS, MARKERS, BATCHES, strict=False):
            runs = np.array([found[batch, rho] for rho in RHOS])[:, :, i]
            axes.errorbar(
                RHOS, runs.mean(axis=1), runs.std(axis=1, ddof=1), color=colour, marker=marker,
                capsize=2, label=f"batch {batch}",
            )  # fmt: skip
        axes.set(title=title, xlabel="rho")
    axes.legend()
    figure.savefig(path)
