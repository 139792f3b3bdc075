"""What the page knows of the trials: one list a column, short numbers, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mtlsk.comparison import DELTA_M, EVERY_SEED, UNDOMINATED, Fronts, delta_m
from mtlsk.drawing import COLOURS
from mtlsk.outcome import SEARCH, STUDIES, Results, better
from mtlsk.report.figure import attained
from mtlsk.report.markdown import best_rows, named
from mtlsk.report.repeat import repeat_pieces
from mtlsk.report.text import parameters, records

EPOCHS = 100
"""Epochs of a trace that the page holds: longer ones are thinned evenly, ends included."""

LOOKS = {
    "search": ("circle", "solid", "●"),
    "scalarization": ("triangle-up", "dash", "▲"),
    "equal_weights": ("square", "dot", "■"),
    "single_task": ("diamond", "dashdot", "◆"),
}
DARK = {"#0072B2": "#56B4E9"}
"""Blue is too dark on a dark page: the set's lighter one stands in for it."""


def page_data(results: Results, fronts: Fronts) -> dict[str, Any]:
    """Return all that the scripts of the page read."""
    trials = results.trials
    front = fronts.table()
    axes, columns = _axes(results, fronts)
    best, _ = best_rows(results, fronts)
    chosen = best.get(SEARCH, next(iter(best.values()), None))
    on_front = trials.index.isin(front.index)
    return {
        "name": results.name,
        "studies": [_look(study) for study in STUDIES],
        "tasks": list(results.task_names),
        "n_objectives": len(results.objectives),
        "axes": axes,
        "columns": columns,
        "spreads": _spreads(results, axes),
        "n_repeats": results.n_repeats,
        "study": [STUDIES.index(s) if s in STUDIES else 0 for s in trials["study"]],
        "number": [int(n) for n in trials["number"]],
        "state": list(trials["state"]),
        "reason": [r if isinstance(r, str) else "" for r in trials["reason"]],
        "front": [int(b) for b in on_front],
        "undominated": _marks(trials, front, UNDOMINATED),
        "every_seed": _marks(trials, front, EVERY_SEED) if EVERY_SEED in front else None,
        "text": [parameters(row) for row in records(trials[_searched(trials)])],
        "parameters": {c.removeprefix("param: "): _values(trials[c]) for c in _searched(trials)},
        "attained": _attained(results, fronts),
        "base": _base(results, fronts, axes),
        "chosen": None if chosen is None else trials.index.tolist().index(chosen),
        "traces": {f"{s} {n}": _trace(trace) for (s, n), trace in results.traces.items()},
        "repeat": repeat_pieces(results),
    }


def _look(study: str) -> dict[str, str]:
    symbol, dash, sign = LOOKS[study]
    colour = COLOURS[STUDIES.index(study)]
    return {
        "id": study,
        "name": named(study),
        "symbol": symbol,
        "dash": dash,
        "sign": sign,
        "light": colour,
        "dark": DARK.get(colour, colour),
    }


def _searched(trials: pd.DataFrame) -> list[str]:
    every = [str(c) for c in trials if str(c).startswith("param: ")]
    return [c for c in every if trials[c].notna().any()]


def _axes(results: Results, fronts: Fronts) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what a plot can have on an axis, and its values over the trials by id."""
    trials = results.trials
    axes: list[dict[str, Any]] = []
    columns: dict[str, Any] = {}

    def add(ident: str, column: str, label: str, group: str, maximise: bool, values: Any) -> None:
        words = better(maximise)
        axes.append(
            {"id": ident, "column": column, "label": label, "group": group}
            | {"maximise": maximise, "better": words}
        )
        columns[ident] = _values(values)

    both = list(zip(results.objectives, results.maximise, strict=True))
    for i, (name, up) in enumerate(both):
        add(
            f"t{i}", f"test: {name}", f"test {name}", "test objectives", up, trials[f"test: {name}"]
        )
    for k, task in enumerate(results.task_names):
        column = f"test loss: {task}"
        same = [c for c in results.columns("test") if _equal(trials, c, column)]
        if column in trials and not same:
            add(f"l{k}", column, f"test loss {task}", "test losses", False, trials[column])
    for i, (name, up) in enumerate(both):
        column = f"validation: {name}"
        add(f"v{i}", column, f"validation {name}", "validation objectives", up, trials[column])
    for k, task in enumerate(results.task_names):
        column = f"validation loss: {task}"
        if column in trials and f"l{k}" in columns:
            label = f"validation loss {task}"
            add(f"w{k}", column, label, "validation losses", False, trials[column])
    if fronts.base:
        values = pd.Series(delta_m(results, trials, fronts.base), index=trials.index)
        add("delta", DELTA_M, "Δm % against single task", "other", False, values)
    add("seconds", "seconds", "seconds", "other", False, trials["seconds"])
    add("number", "number", "trial number", "other", False, trials["number"])
    return axes, columns


def _equal(trials: pd.DataFrame, first: str, second: str) -> bool:
    """Say whether an objective is a task's loss under another name."""
    if not {first, second} <= set(trials):
        return False
    a, b = (trials[c].to_numpy(dtype=np.float64) for c in (first, second))
    both = np.isfinite(a) & np.isfinite(b)
    return bool(both.any() and np.array_equal(a[both], b[both]))


def _values(column: Iterable[Any]) -> list[Any]:
    return [_short(v) for v in column]


def _short(value: Any) -> Any:
    """Return a value for JSON: six digits are more than any trial is repeated to."""
    if value is None or value is pd.NA:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isfinite(number):
            return None
        number = float(f"{number:.6g}")
        return int(number) if number.is_integer() and abs(number) < 1e15 else number
    return str(value)


def _marks(trials: pd.DataFrame, front: pd.DataFrame, column: str) -> list[int]:
    marked = front.index[front[column].fillna(False).astype(bool)] if len(front) else front.index
    return [int(b) for b in trials.index.isin(marked)]


def _spreads(results: Results, axes: list[dict[str, Any]]) -> dict[str, list[Any]] | None:
    """Return the standard deviations over the repeats, by the id of an axis."""
    table = results.repeats
    if table is None or table.empty or results.n_repeats < 2:
        return None
    keys = pd.MultiIndex.from_frame(results.trials[["study", "number"]])
    columns = {a["id"]: a["column"] for a in axes if a["column"] in table}
    found = table.groupby(["study", "number"])[list(columns.values())].std(ddof=1).reindex(keys)
    return {ident: _values(found[column]) for ident, column in columns.items()}


def _attained(results: Results, fronts: Fronts) -> dict[str, Any]:
    """Return what each front attains on two objectives, in their own signs."""
    if len(results.objectives) != 2:
        return {}
    sign = np.where(results.maximise, -1.0, 1.0)
    points = {study: attained(results, fronts, study) * sign for study in fronts.rows}
    return {
        s: [[_short(v) for v in p] for p in array.T] for s, array in points.items() if len(array)
    }


def _base(results: Results, fronts: Fronts, axes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the best single-task loss by the id of each axis that shows a task's test loss."""
    found = {}
    for task, loss in fronts.base.items():
        for axis in axes:
            if axis["column"] == f"test loss: {task}" or (
                axis["group"] == "test objectives"
                and _equal(results.trials, axis["column"], f"test loss: {task}")
            ):
                found[axis["id"]] = _short(loss)
    return found


def _trace(trace: dict[str, Any]) -> dict[str, Any]:
    """Return a trace's lists over at most ``EPOCHS`` epochs; of cosines the upper triangle."""
    n = max((len(v) for v in trace.values() if isinstance(v, list)), default=0)
    kept = sorted({int(i) for i in np.linspace(0, n - 1, min(n, EPOCHS)).round()}) if n else []
    found: dict[str, Any] = {"epochs": [i + 1 for i in kept], "thinned": n if n > EPOCHS else None}
    for name in ("train_losses", "task_weights"):
        if trace.get(name):
            found[name] = [_rounded(trace[name][i]) for i in kept if i < len(trace[name])]
    if trace.get("cosines"):
        found["cosines"] = [
            None
            if matrix is None
            else _rounded([matrix[i][j] for i in range(len(matrix)) for j in range(i)])
            for matrix in (trace["cosines"][i] for i in kept if i < len(trace["cosines"]))
        ]
    return found


def _rounded(values: Any) -> list[Any] | None:
    if values is None:
        return None
    return [None if v is None or not math.isfinite(v) else float(f"{float(v):.3g}") for v in values]
