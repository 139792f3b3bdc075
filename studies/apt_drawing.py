"""The pictures of studies/apt.py."""

from __future__ import annotations

import numpy as np
from apt_parts import BATCHES, HOSTS, RHOS
from matplotlib.figure import Figure

from mtlsk.drawing import COLOURS, MARKERS


def draw_arms(cells, path):
    """Draw each comparison's mean difference and 95 % interval, a panel a data set."""
    names = list(dict.fromkeys(c[0] for c in cells))
    arms = list(dict.fromkeys((c[1], c[2]) for c in cells))
    size = (2.4 * len(names) + 2.2, 0.15 * len(arms) + 1.6)
    figure = Figure(figsize=size, dpi=90, layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, names, strict=True):
        for optimizer, aggregator, mean, half in (c[1:] for c in cells if c[0] == name):
            i, place = list(HOSTS).index(optimizer), arms.index((optimizer, aggregator))
            axes.errorbar(mean, place, xerr=half, fmt=MARKERS[i], color=COLOURS[i], ms=4)
        axes.axvline(0, color="0.5", lw=1)
        axes.set(title=name, xlabel="change of Delta_m%")
    panels[0].set_yticks(range(len(arms)), [" ".join(arm) for arm in arms], fontsize=7)
    panels[0].invert_yaxis()
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
        axes.plot(places, [means[o, arm][3] for o in optimizers], "_", color="black", ms=16)
        for place, o in zip(places, optimizers, strict=True):
            runs = [run[1] for run in found[o, arm]]
            axes.plot([place] * len(runs), runs, ".", color="0.7", ms=4)
    axes.plot([], [], "D", color="black", ms=5, label="its coefficient")
    axes.plot([], [], "_", color="black", ms=16, label="its length")
    axes.axhline(threshold, color="0.5", ls="--", lw=1)
    axes.set_xticks(range(len(optimizers)), optimizers)
    axes.set(ylabel="share of the update", title="Share of the instant gradient in the update")
    figure.legend(loc="outside right upper")
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
