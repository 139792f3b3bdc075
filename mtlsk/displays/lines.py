"""A line a task over the epochs; where tasks are many, some of them in colour, all in grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtlsk.displays.series import Array, chosen
from mtlsk.drawing import COLOURS, MARKERS, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

FEW = len(COLOURS)
"""Tasks that can be told apart by colour and marker; of more, six are and the others are grey."""


def picked(tasks: Sequence[Any] | None, names: Sequence[str], last: Array) -> list[int]:
    """Return the tasks to colour: those asked for, all of a few, or of many the extremes of last.

    ``last`` (K,) orders them: the three largest and the three smallest.
    """
    if tasks is not None:
        found = chosen(tasks, names)
        if len(found) > FEW:
            raise ValueError(f"tasks names {len(found)} tasks, but at most {FEW} can be told apart")
        return found
    if len(names) <= FEW:
        return list(range(len(names)))
    order = [int(k) for k in np.argsort(-last, kind="stable") if np.isfinite(last[k])]
    return order[:3] + order[3:][-3:]


def task_lines(
    panel: Axes, epochs: Any, values: Array, colour: Sequence[int], *, second: bool = False
) -> list[Line2D]:
    """Draw values (E, K) over the epochs and return K lines; ``second`` ones are dashed."""
    few = len(epochs) // 10 + 1
    lines = []
    for k, column in enumerate(values.T):
        look: dict[str, Any] = {"color": "0.75", "linewidth": 0.7, "zorder": 1}
        if k in colour:
            i = list(colour).index(k)
            look = {"color": COLOURS[i], "marker": MARKERS[i], "linewidth": 1.5, "zorder": 3}
            look |= {"markersize": 5.5, "markevery": (i * few // FEW, few)}
        if len(epochs) == 1:
            look["marker"] = look.get("marker", ".")
        if second:
            look |= {"linestyle": "--", "markerfacecolor": "white", "zorder": look["zorder"] - 0.5}
        lines += panel.plot(epochs, column, **look)
    return lines


def typical(panel: Axes, epochs: Any, values: Array) -> Line2D:
    """Draw the median of the tasks of each epoch."""
    there = [row[np.isfinite(row)] for row in values]
    median = [float(np.median(row)) if row.size else np.nan for row in there]
    look: dict[str, Any] = {"color": "0.35", "linewidth": 3, "linestyle": (0, (1, 1)), "zorder": 2}
    return panel.plot(epochs, median, **look)[0]


def legend(panel: Axes, entries: Sequence[tuple[Any, str]]) -> Any:
    """Write a legend beside the panel."""
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("epoch")
    panel.grid(alpha=0.25)
    handles = [handle for handle, _ in entries]
    made = panel.legend(
        handles,
        [str(i) for i in range(len(entries))],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
    )
    # set afterwards: matplotlib leaves out labels that begin with an underscore
    for text, (_, name) in zip(made.get_texts(), entries, strict=True):
        text.set_text(name)
    return made


def entries_of(lines: Sequence[Any], colour: Sequence[int], names: Sequence[str]) -> list[Any]:
    """Return the legend's entries of coloured tasks, and of the grey ones as one."""
    found = [(lines[k], short(names[k])) for k in colour]
    grey = [k for k in range(len(names)) if k not in colour]
    if grey:
        found.append((lines[grey[0]], f"the other {len(grey)} tasks"))
    return found
