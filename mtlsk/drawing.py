"""What all pictures share: colours and markers everyone can tell apart, safe text, axes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito: colours that all common forms of colour blindness keep apart, and a marker for
# each, so that a picture is read in black and white too.
BLUE, VERMILION = "#0072B2", "#D55E00"
COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")


def plain(text: str, width: int = 40) -> str:
    """Return text in lines of ``width`` that matplotlib draws as it is."""
    return textwrap.fill(escaped(text), width)


def short(text: str, width: int = 24) -> str:
    """Return text that matplotlib draws in one line as it is, the middle of a long one left out."""
    if len(text) > width:
        end = width // 3
        text = text[: width - end - 1] + "…" + text[-end:]
    return escaped(text)


def escaped(text: str) -> str:
    """Return text without formulas: a bare "$" would start one."""
    return text.replace("$", r"\$")


def axes(ax: Any, size: tuple[float, float], rows: int = 1, columns: int = 1) -> Any:
    """Return an object array (rows, columns) of Axes: those given, or of a new figure.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        Where the axes given are not as many as are drawn.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plots need matplotlib: run pip install "mtlsk[plot]"') from error
    if ax is None:
        return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)[1]
    given = np.array(ax, dtype=object)
    if given.size != rows * columns:
        raise ValueError(
            f"ax holds {given.size} axes, but {rows * columns} are drawn; give as many, or None"
        )
    return given.reshape(rows, columns)


def log_axis(panel: Axes, which: str, values: Any, log: Any) -> None:
    """Make an axis logarithmic; "auto" does where values are positive and span a factor of 10."""
    if log not in ("auto", True, False):
        raise ValueError(f"log={log!r} is not allowed; use 'auto', True or False")
    there = np.asarray(values, dtype=np.float64)
    there = there[np.isfinite(there)]
    positive = there.size > 0 and bool(there.min() > 0)
    if log is True or (log == "auto" and positive and there.max() > 10 * there.min()):
        getattr(panel, f"set_{which}scale")("log")
