"""The pictures of studies/scalarization_linear.py."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from scalarization_linear_nets import EQUAL, SWEEP, TRIPLES

from mtlsk.drawing import COLOURS, MARKERS


def bars(out, exact, found):
    """Draw the worst task's error of every run, a panel a table."""
    figure = Figure(figsize=(4.2 * len(exact), 3.9), dpi=110, layout="constrained")
    for panel, (name, e) in zip(figure.subplots(1, len(exact), squeeze=False)[0], exact.items(),
                                strict=True):  # fmt: skip
        methods = list(found[name])
        for i, method in enumerate(methods):
            worst = [mse.max() for mse, _, _ in found[name][method]]
            at = i + np.linspace(-0.2, 0.2, len(worst))
            colour = COLOURS[0] if i < 2 else COLOURS[1]
            panel.plot(at, worst, MARKERS[0 if i < 2 else 1], color=colour, alpha=0.8)
        panel.axhline(e.balanced.max(), color="black", lw=1, label="exact min-max")
        low = e.optima.max(axis=1).min()
        panel.axhline(low, color=COLOURS[0], ls="--", lw=1, label="best weights, closed form")
        panel.axhline(e.draw.expected_mse_.max(), color=COLOURS[2], ls=":", label="mixture")
        panel.set_xticks(range(len(methods)), methods, rotation=60, ha="right")
        panel.set(title=f"{name}: gap {e.gap:.3f}", ylabel="worst task's MSE (training rows)")
    panel.legend(fontsize=8)
    figure.savefig(out / "worst.png")


def front(out, name, exact, found):
    """Draw feasible errors, scalarization's optima and the end points, in two projections."""
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(exact.fit.G)
    u = rng.normal(size=(4000, 3))
    models = exact.fit.mse((u / np.linalg.norm(u, axis=1, keepdims=True) @ root.T) ** 2)
    kept = [m for m in models if not (models < m).all(axis=1).any()]
    figure = Figure(figsize=(10, 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, (i, j) in zip(panels, ((0, 1), (0, 2)), strict=True):
        points = np.array(kept)
        panel.plot(points[:, i], points[:, j], ".", ms=2, color="0.75", label="Pareto front, drawn")
        o = exact.optima[::4]
        panel.plot(o[:, i], o[:, j], ".", ms=4, color=COLOURS[0], label="optima of weights")
        rest = [m for m in found if m not in (EQUAL, SWEEP)]
        for n, method in enumerate(rest):
            ends = np.array([mse for mse, _, _ in found[method]])
            colour, marker = COLOURS[1:][n % 6], MARKERS[1:][n % 6]
            panel.plot(ends[:, i], ends[:, j], marker, color=colour, label=method, alpha=0.85)
        b = exact.balanced
        panel.plot(b[i], b[j], "*", ms=16, color="black", mfc="none", label="balanced, exact")
        tasks = [f"torque {t + 1}" for t in TRIPLES.get(name, ())] or ["task 1", "task 2", "task 3"]
        panel.set(xlabel=f"MSE of {tasks[i]}", ylabel=f"MSE of {tasks[j]}")
        panel.set_title(f"{name}: {tasks[i]} and {tasks[j]}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(out / "front.png")
