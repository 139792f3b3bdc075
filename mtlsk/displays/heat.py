"""Heat maps of cosines that are read without colour too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mtlsk.displays.series import Array

CLEAR = -0.05
"""Cosines below it bear a bar: closer to zero the sign is most often noise."""


def span_of(values: Array) -> float:
    """Return a number s so that -s..s holds all values, 0.2 at least, a multiple of 0.1."""
    there = np.abs(values[np.isfinite(values)])
    return max(0.2, math.ceil(float(there.max()) * 10 - 1e-9) / 10) if there.size else 1.0


def heat_map(
    panel: Any, values: Array, span: float, numbers: bool, *, square: bool
) -> tuple[Any, list[Any]]:
    """Draw values (rows, columns) and return the image and the numbers in its cells.

    Orange is below 0 and purple above, of equal strength for equal size: those who see no colours
    tell them apart by the numbers, or by the bars through what is clearly below 0.
    """
    from matplotlib import colormaps

    colours = colormaps["PuOr"].with_extremes(bad=(1, 1, 1, 0))
    panel.patch.set(facecolor="white", edgecolor="0.6", hatch="////")
    look: dict[str, Any] = {"interpolation": "nearest", "aspect": "equal" if square else "auto"}
    drawn = np.ma.masked_invalid(values)
    image = panel.imshow(drawn, vmin=-span, vmax=span, cmap=colours, **look)
    texts = []
    if numbers:
        size = 9.0 if len(values) <= 10 else 7.5
        for i, j in np.argwhere(np.isfinite(values)):
            value = values[i, j]
            ink = "white" if abs(value) > 0.65 * span else "black"
            text = "1" if square and i == j else rounded(value)
            texts.append(panel.text(j, i, text, ha="center", va="center", color=ink, fontsize=size))
        return image, texts
    low = np.nan_to_num(values) < CLEAR
    begins, ends = low.copy(), low.copy()
    if not square:  # one bar through neighbours
        begins[:, 1:] &= ~low[:, :-1]
        ends[:, :-1] &= ~low[:, 1:]
    rows, left = np.nonzero(begins)
    _, right = np.nonzero(ends)
    panel.hlines(rows, left - 0.25, right + 0.25, color="black", linewidth=0.8)
    return image, texts


def rounded(value: float) -> str:
    """Return a number with two decimals, zero without a sign."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def colour_bar(image: Any, panels: list[Any], bars: bool) -> Any:
    """Draw the scale of the colours beside the panels, and say what bars mean."""
    label = (
        "cosine of the task gradients\n(below 0: conflict" + f"; bar: below {CLEAR}" * bars + ")"
    )
    return panels[0].figure.colorbar(image, ax=panels, label=label, shrink=0.9, aspect=30)
