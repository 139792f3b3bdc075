"""The picture of a report: the fronts on the test objectives."""

from __future__ import annotations

import io
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mtlsk.comparison import Fronts
from mtlsk.drawing import BLUE, COLOURS, VERMILION, plain
from mtlsk.outcome import EQUAL_WEIGHTS, SCALARIZATION, SEARCH, Results, better
from mtlsk.pareto import Mask, Values, non_dominated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Trials = dict[str, pd.DataFrame]

COLOUR = {SEARCH: BLUE, SCALARIZATION: VERMILION, EQUAL_WEIGHTS: COLOURS[2]}
MARKER = {SEARCH: "o", SCALARIZATION: "^", EQUAL_WEIGHTS: "s"}
LINES = 500
"""Pale lines of one study: more are one grey anyway."""

DASH = {SEARCH: "-", SCALARIZATION: "--", EQUAL_WEIGHTS: ":"}


def picture(results: Results, found: Fronts, about: str) -> bytes:
    """Draw the test objectives: strip (1), axes (2), three panels (3) or parallel lines (more)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    m = len(results.objectives)
    pairs = list(combinations(range(m), 2)) if m in (2, 3) else [(0, 0)]
    width = {1: 7.0, 2: 7.0, 3: 14.0}.get(m, max(7.5, 1.7 * m))
    figure = Figure(figsize=(width, 5.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    fronts = found.rows
    trials = {study: results.usable(study) for study in fronts}
    outside = np.zeros(sum(map(len, trials.values())), dtype=np.bool_)
    for panel, pair in zip(panels, pairs, strict=True):
        if not outside.size:
            panel.text(0.5, 0.5, "no complete trial", ha="center", transform=panel.transAxes)
            panel.set_axis_off()
        elif m == 1:
            outside |= _strip(panel, results, trials, fronts)
        elif m <= 3:
            outside |= _scatter(panel, results, trials, found, pair)
        else:
            outside |= _parallel(panel, results, trials, fronts)
    if outside.size:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=min(len(labels), 2 if width < 8 and len(labels) > 3 else 3),
            frameon=False,
        )
    if outside.any():
        text = f"{outside.sum()} of {outside.size} complete trials reach outside the picture"
        figure.supxlabel(text, fontsize=9, color="0.35")
    buffer = io.BytesIO()
    described = {"Title": results.name, "Description": about}
    figure.savefig(buffer, format="png", metadata=described)
    return buffer.getvalue()


def _label(results: Results, i: int) -> str:
    return f"test {plain(results.objectives[i])}\n({better(results.maximise[i])})"


def _window(front: Values, every: Values) -> tuple[float, float]:
    """Limits that hold the front and the middle half of all trials: a wild one cannot squash it."""
    low, high = np.quantile(every, [0.25, 0.75])
    low, high = min(low, front.min()), max(high, front.max())
    margin = 0.15 * (high - low) or 0.1 * (abs(high) or 1.0)
    return float(low - margin), float(high + margin)


def _beyond(values: Values, limits: tuple[float, float]) -> Mask:
    return (values < limits[0]) | (values > limits[1])


def _dots(panel: Axes, study: str, x: Any, y: Any, strong: bool) -> None:
    look: dict[str, Any] = {"markersize": 6, "markeredgewidth": 0, "alpha": 0.3}
    if strong:
        look = {"markersize": 9, "markeredgecolor": "black", "markeredgewidth": 0.8, "zorder": 3}
        look["label"] = f"{study.replace('_', ' ')}, front"
    panel.plot(x, y, linestyle="none", color=COLOUR[study], marker=MARKER[study], **look)


def _scatter(
    panel: Axes, results: Results, trials: Trials, found: Fronts, pair: tuple[int, int]
) -> Mask:
    """Two objectives against each other; returns which trials the panel leaves out."""
    fronts = found.rows
    every, chosen = (results.values(pd.concat(f.values()), "test") for f in (trials, fronts))
    i, j = pair
    limits = [_window(chosen[:, k], every[:, k]) for k in pair]
    for study in fronts:
        for rows, strong in ((trials[study], False), (fronts[study], True)):
            if len(rows):
                points = results.values(rows, "test")
                _dots(panel, study, points[:, i], points[:, j], strong)
    if len(results.objectives) == 2:
        for study in fronts if found.seeds is not None else [SCALARIZATION]:
            _attained(panel, results, found, study, limits)
    panel.set(xlim=limits[0], ylim=limits[1], xlabel=_label(results, i), ylabel=_label(results, j))
    panel.grid(alpha=0.25)
    return _beyond(every[:, i], limits[0]) | _beyond(every[:, j], limits[1])


def _attained(
    panel: Axes, results: Results, found: Fronts, study: str, limits: list[tuple[float, float]]
) -> None:
    """Draw as steps what a front attains, in half of the seeds where there are several."""
    points = attained(results, found, study)
    if len(points):
        # the steps run on to the worse edges of the picture
        sign = np.where(results.maximise, -1.0, 1.0)
        edge = (sign[:, None] * np.array(limits)).max(axis=1)
        path = sign * np.vstack([[points[0, 0], edge[1]], points, [edge[0], points[-1, 1]]])
        look: dict[str, Any] = {"color": COLOUR[study], "linewidth": 1.2, "linestyle": DASH[study]}
        what = "attained" if found.seeds is None else "attained in half the seeds"
        label = f"{study.replace('_', ' ')}, {what}"
        panel.plot(*path.T, drawstyle="steps-post", label=label, **look)


def attained(results: Results, found: Fronts, study: str) -> Values:
    """Return the minimised corners, by the first objective, of what a front attains on test."""
    if study not in found.rows or not len(found.rows[study]):
        return np.empty((0, len(results.objectives)))
    if found.seeds is not None:
        return found.seeds.median_attained(study)
    points = results.minimised(found.rows[study], "test")
    points = points[non_dominated(points)]
    return np.asarray(points[np.argsort(points[:, 0])])


def _strip(panel: Axes, results: Results, trials: Trials, fronts: Trials) -> Mask:
    """Sort the trials of each study by the one objective; its front is one point."""
    every, chosen = (results.values(pd.concat(f.values()), "test") for f in (trials, fronts))
    limits = _window(chosen[:, 0], every[:, 0])
    for study in fronts:
        rows = trials[study]
        order = np.argsort(results.minimised(rows, "test")[:, 0], kind="stable")
        heights = results.values(rows, "test")[order, 0]
        ranks = np.arange(1, len(rows) + 1)
        best = rows.index[order].isin(fronts[study].index)
        _dots(panel, study, ranks, heights, False)
        if best.any():
            _dots(panel, study, ranks[best], heights[best], True)
    panel.set(xlabel="trials, best on test first", ylabel=_label(results, 0), ylim=limits)
    panel.grid(alpha=0.25)
    return _beyond(every[:, 0], limits)


def _parallel(panel: Axes, results: Results, trials: Trials, fronts: Trials) -> Mask:
    """One axis an objective, scaled so that 0 is the best and 1 the worst value on the fronts."""
    every, chosen = (results.minimised(pd.concat(f.values()), "test") for f in (trials, fronts))
    ideal = chosen.min(axis=0)
    span = np.where(np.ptp(chosen, axis=0) > 0, np.ptp(chosen, axis=0), 1.0)
    limits = (-0.15, 1.5)
    for study in fronts:
        for rows, strong in ((trials[study], False), (fronts[study], True)):
            look: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.15}
            if strong:
                look = {"linewidth": 1.4, "marker": MARKER[study], "markersize": 7, "zorder": 3}
                look["linestyle"] = DASH[study]
            if not strong and len(rows) > LINES:
                rows = rows.iloc[np.linspace(0, len(rows) - 1, LINES).astype(int)]
            z = (results.minimised(rows, "test") - ideal) / span
            if len(z):
                # one broken line, because thousands of lines take matplotlib a minute
                broken = np.hstack([z, np.full((len(z), 1), np.nan)]).ravel()
                places = np.tile([*map(float, range(z.shape[1])), np.nan], len(z))
                label = f"{study.replace('_', ' ')}, front" if strong else None
                panel.plot(places, broken, color=COLOUR[study], label=label, **look)
    worst = ideal + span
    ticks = [
        f"{plain(name, 18)}\nbest {-a if up else a:.3g}\nworst {-b if up else b:.3g}"
        for name, up, a, b in zip(results.objectives, results.maximise, ideal, worst, strict=True)
    ]
    panel.set_xticks(range(len(ticks)), ticks, fontsize=9)
    panel.set(ylim=limits, ylabel="test objectives, scaled by the fronts\n(lower is better)")
    panel.grid(alpha=0.25)
    beyond: Mask = np.any(_beyond((every - ideal) / span, limits), axis=1)
    return beyond
