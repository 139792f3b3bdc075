"""The report of a study: two CSVs, a page of Markdown and a picture, written all or none.

Each front is chosen on the validation objectives and judged on the test objectives, which no trial
has seen: indicators, masks and the verdict are test values throughout.
"""

from __future__ import annotations

import io
import os
import re
import socket
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mtlsk.pareto import Comparison, Mask, Values, compare_fronts, non_dominated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Results", "write_report"]

Trials = dict[str, pd.DataFrame]

STUDIES = ("search", "scalarization")
SHOWN = 20
# Okabe and Ito: two colours that all common forms of colour blindness keep apart.
COLOUR = {"search": "#0072B2", "scalarization": "#D55E00"}
MARKER = {"search": "o", "scalarization": "^"}


@dataclass(frozen=True, eq=False)
class Results:
    """All that a report says about one run of a study.

    Parameters
    ----------
    name, date : str
        The study's name and the day it ran (ISO).
    data_name, data_sha256 : str
    n_rows : dict
        Rows of "train", "validation" and "test".
    notes : list of str
        Sentences on the data or the search that a reader must know.
    objectives, maximise : list
        One name and one direction each; values keep the objective's own sign.
    task_names : list of str
    trials : DataFrame
        One row a finished or failed trial: `study` ("search" or "scalarization"), `number`,
        `state` ("COMPLETE" or "FAIL"), `reason` (why it failed), `seconds`, `param: NAME`,
        `validation: OBJECTIVE`, `test: OBJECTIVE` and `test loss: TASK`.
    seed : int
    wanted : dict
        Trials wanted of each study.
    machine, versions : dict of str
        As `mtlsk.machine` gives them.

    Raises
    ------
    ValueError
        Without objectives, or with as many directions as there are no objectives for.
    """

    name: str
    date: str
    data_name: str
    data_sha256: str
    n_rows: dict[str, int]
    notes: list[str]
    objectives: list[str]
    maximise: list[bool]
    task_names: list[str]
    trials: pd.DataFrame
    seed: int
    wanted: dict[str, int]
    machine: dict[str, str]
    versions: dict[str, str]

    def __post_init__(self) -> None:
        if not self.objectives or len(self.objectives) != len(self.maximise):
            raise ValueError(
                f"{len(self.objectives)} objectives and {len(self.maximise)} directions: "
                "give one entry of maximise to each of one or more objectives."
            )

    def columns(self, part: str) -> list[str]:
        """Names of the objectives' columns in one part, "validation" or "test"."""
        return [f"{part}: {objective}" for objective in self.objectives]

    def values(self, rows: pd.DataFrame, part: str) -> Values:
        """Objectives of some trials, (n, m), each in its own sign."""
        return rows[self.columns(part)].to_numpy(dtype=np.float64)

    def minimised(self, rows: pd.DataFrame, part: str) -> Values:
        """Objectives of some trials, (n, m), each with the sign that makes lower better."""
        return self.values(rows, part) * np.where(self.maximise, -1.0, 1.0)

    def of(self, study: str, state: str) -> pd.DataFrame:
        """Trials of one study in one state."""
        return self.trials.loc[(self.trials["study"] == study) & (self.trials["state"] == state)]

    def usable(self, study: str) -> pd.DataFrame:
        """Complete trials of one study whose objectives are all finite."""
        rows = self.of(study, "COMPLETE")
        both = [self.values(rows, part) for part in ("validation", "test")]
        finite: Mask = np.all(np.isfinite(np.hstack(both)), axis=1)
        return rows.loc[finite]

    def directions(self) -> str:
        """Every objective with its direction, in words."""
        pairs = zip(self.objectives, self.maximise, strict=True)
        return ", ".join(f"{name} ({_better(up)})" for name, up in pairs)


def write_report(results: Results, out: Path) -> Comparison | None:
    """Write `trials.csv`, `front.csv`, `report.md` and `pareto.png` into the folder `out`.

    Everything is made before anything is written, and each file replaces its predecessor in one
    step. Absolute paths and the name of this host are taken out of all free text. Where one front
    is empty, every point of the other is `undominated` in front.csv.

    Returns
    -------
    The comparison of the two fronts on the test objectives; None where one study has no point.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    results = _cleaned(results)
    chosen = {study: _front(results, study) for study in STUDIES}
    comparison = compare_fronts(*(results.minimised(chosen[s], "test") for s in STUDIES))
    masks = (comparison.search.undominated, comparison.scalarization.undominated)
    front = pd.concat(
        [chosen[s].assign(undominated=mask) for s, mask in zip(STUDIES, masks, strict=True)]
    ).drop(columns=["state", "reason"])
    compared = comparison if all(len(chosen[s]) for s in STUDIES) else None
    _write(
        out,
        {
            "trials.csv": _csv(results, results.trials),
            "front.csv": _csv(results, front),
            "pareto.png": _picture(results, front),
            "report.md": _page(results, front, compared).encode(),
        },
    )
    return compared


def _front(results: Results, study: str) -> pd.DataFrame:
    rows = results.usable(study)
    rows = rows[non_dominated(results.minimised(rows, "validation"))]
    order = np.argsort(results.minimised(rows, "test")[:, 0], kind="stable")
    return rows.iloc[order]


def _cleaned(results: Results) -> Results:
    """Take paths and the host's name out of free text; give the trials every column they need."""
    trials = results.trials.reset_index(drop=True)
    numbers = ["number", "seconds", *results.columns("validation"), *results.columns("test")]
    for name in ["study", "state", "reason", *numbers]:
        if name not in trials:
            trials[name] = np.nan if name in numbers else ""
    for name in trials.columns.drop(["study", "state"]):
        if not pd.api.types.is_numeric_dtype(trials[name]):
            values = [_clean(v) if isinstance(v, str) else v for v in trials[name]]
            trials[name] = pd.Series(values, index=trials.index, dtype=object)
    return replace(
        results,
        name=_clean(results.name),
        data_name=_clean(results.data_name),
        notes=[_clean(note) for note in results.notes],
        trials=trials,
    )


def _clean(text: str) -> str:
    # Two or more components after a slash or a drive; addresses (scheme://) stay.
    text = re.sub(r"(?<![\w/.])(?!//)(?:[A-Za-z]:)?(?:[/\\][\w.+~@-]+){2,}[/\\]?", "<path>", text)
    host = socket.gethostname()
    for name in {host, host.partition(".")[0]} - {"", "localhost"}:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<host>", text)
    return text


def _csv(results: Results, rows: pd.DataFrame) -> bytes:
    constant = {
        "data": results.data_name,
        "sha256": results.data_sha256,
        "cpu": results.machine.get("cpu", "unknown"),
        "versions": " ".join(f"{name}={v}" for name, v in results.versions.items()),
    }
    return rows.assign(**constant).to_csv(index=False, lineterminator="\n").encode()


def _write(out: Path, contents: dict[str, bytes]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    # In the same folder, because os.replace is one step only within a file system.
    temporary = {name: out / f".{name}.{os.getpid()}.tmp" for name in contents}
    try:
        for name, content in contents.items():
            temporary[name].write_bytes(content)
        for name in contents:
            os.replace(temporary[name], out / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------- the page


def _better(maximise: bool) -> str:
    return "higher is better" if maximise else "lower is better"


def _number(value: Any) -> str:
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    if isinstance(value, int | float | np.number):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e6 else f"{number:.3g}"
    return str(value)


def _parameters(row: dict[str, Any]) -> str:
    """Write `aggregator[ConicGrad]__c` = 0.61 as `c=0.61`; an indexed family becomes a tuple."""
    stems: dict[str, list[str]] = {}
    indexed = set()
    for column, value in row.items():
        if not column.startswith("param: ") or value is None or value is pd.NA or value != value:
            continue
        name = column.removeprefix("param: ")
        stem = re.sub(r"\[\d+\]$", "", name)
        stems.setdefault(stem, []).append(_number(value))
        if stem != name:
            indexed.add(stem)
    groups = [re.split(r"\[|__", stem)[0] for stem in stems]
    shorts = [stem.rpartition("__")[2] for stem in stems]
    parts = []
    # What belongs to one component follows it: aggregator=ConicGrad c=0.61, then the rest.
    for stem in sorted(stems, key=lambda s: groups.index(re.split(r"\[|__", s)[0])):
        owner, _, short = stem.rpartition("__")
        if shorts.count(short) > 1 and owner:
            short = f"{(re.findall(r'[^][]+', owner) or [owner])[-1]}.{short}"
        values = stems[stem]
        parts.append(
            f"{short}=({', '.join(values)})" if stem in indexed else f"{short}={values[0]}"
        )
    return " ".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(head), ["---"] * len(head), *rows]
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return [*(f"| {' | '.join(line)} |" for line in cells), ""]


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def _page(results: Results, front: pd.DataFrame, compared: Comparison | None) -> str:
    if compared is None:
        empty = [s for s in STUDIES if not (front["study"] == s).any()]
        verdict = (
            f"No comparison: {' and '.join(empty)} gave no complete trial with finite objectives."
        )
    else:
        verdict = (
            f"{compared.verdict()} All of this is on the test part, with one seed "
            f"({results.seed}): it says nothing about the spread between seeds."
        )
    return "\n".join(
        [
            f"# {results.name}",
            "",
            verdict,
            "",
            *_indicators(results, compared),
            *_front_tables(results, front, compared is not None),
            "![The Pareto fronts on the test objectives](pareto.png)",
            "",
            *_task_losses(results, front),
            *_failures(results),
            *_run(results),
        ]
    )


def _indicators(results: Results, compared: Comparison | None) -> list[str]:
    rows = []
    if compared is not None:
        sides = (compared.search, compared.scalarization)
        rows = [
            ["hypervolume (higher is better)", *(f"{side.hypervolume:.4g}" for side in sides)],
            ["IGD+ (lower is better)", *(f"{side.igd_plus:.4g}" for side in sides)],
            ["points in the front", *(str(len(side.points)) for side in sides)],
            ["of them undominated by the other", *(str(side.undominated.sum()) for side in sides)],
        ]
    done = [results.of(s, "COMPLETE") for s in STUDIES]
    time = [results.trials.loc[results.trials["study"] == s, "seconds"].sum() for s in STUDIES]
    rows += [
        ["trials complete", *(str(len(trials)) for trials in done)],
        ["trials failed", *(str(len(results.of(s, "FAIL"))) for s in STUDIES)],
        ["trials wanted", *(str(results.wanted.get(s, "unknown")) for s in STUDIES)],
        ["seconds, all trials", *(f"{seconds:.4g}" for seconds in time)],
    ]
    left = sum(len(d) - len(results.usable(s)) for s, d in zip(STUDIES, done, strict=True))
    note = f"Left out: {left} complete trials with an objective that is not finite."
    return [
        *_table(["", *STUDIES], rows),
        "Each front was chosen on the validation part and is judged here on the test part, which "
        "no trial saw; so points of one front may dominate each other. Hypervolume and IGD+ are in "
        "units of the box that both fronts span together, with the reference point at 1.1: they "
        "rank the two fronts and say nothing about the size of the objectives.",
        "",
        *([note, ""] if left else []),
    ]


def _front_tables(results: Results, front: pd.DataFrame, compared: bool) -> list[str]:
    columns = [*results.columns("validation"), *results.columns("test")]
    lines = ["## The fronts", "", f"Objectives: {results.directions()}.", ""]
    rows, more = [], []
    for study in STUDIES:
        points = front[front["study"] == study]
        for row in _records(points.head(SHOWN)):
            label = [study, _number(row["number"]), _parameters(row)]
            values = [f"{row[column]:.4g}" for column in columns]
            undominated = "yes" if row["undominated"] else "no"
            rows.append([*label, *values, undominated if compared else "-"])
        if len(points) > SHOWN:
            more.append(f"{len(points) - SHOWN} more of {study}")
    if not rows:
        return [*lines, "Both fronts are empty.", ""]
    lines += _table(["study", "trial", "parameters", *columns, "undominated"], rows)
    return [*lines, f"In `front.csv`: {' and '.join(more)}.", ""] if more else lines


def _task_losses(results: Results, front: pd.DataFrame) -> list[str]:
    columns = [f"test loss: {task}" for task in results.task_names]
    if not columns or not set(columns) <= set(front.columns) or not len(front):
        return []
    # A mean over the objectives makes sense where there is one a task and all point one way.
    mean = len(results.objectives) == len(columns) and len(set(results.maximise)) == 1
    heads, values = [], []
    for study in STUDIES:
        rows = front[front["study"] == study]
        if len(rows):
            scores = results.minimised(rows, "validation")
            best = rows.iloc[[int((scores.mean(axis=1) if mean else scores[:, 0]).argmin())]]
            heads.append(f"{study}, trial {_number(best['number'].iloc[0])}")
            values.append(best[columns].to_numpy(dtype=np.float64)[0])
    table = [[t, *(f"{v[i]:.4g}" for v in values)] for i, t in enumerate(results.task_names)]
    table.append(["mean", *(f"{v.mean():.4g}" for v in values)])
    rule = "mean of the validation objectives" if mean else f"validation {results.objectives[0]}"
    return [
        "## Test loss of each task",
        "",
        f"Of each front the point with the best {rule}.",
        "",
        *_table(["task", *heads], table),
    ]


def _failures(results: Results) -> list[str]:
    failed = results.trials[results.trials["state"] == "FAIL"]
    if not len(failed):
        return []
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in _records(failed):
        reason = row["reason"] if isinstance(row["reason"], str) and row["reason"] else "unknown"
        kinds.setdefault((row["study"], reason.partition(":")[0]), []).append(reason)
    rows = [
        [study, kind, str(len(reasons)), textwrap.shorten(reasons[0], 160)]
        for (study, kind), reasons in kinds.items()
    ]
    return ["## Failed trials", "", *_table(["study", "reason", "trials", "the first"], rows)]


def _run(results: Results) -> list[str]:
    facts = {
        "data": f"{results.data_name}, sha256 `{results.data_sha256}`",
        "rows": ", ".join(f"{part} {n}" for part, n in results.n_rows.items()),
        "tasks": ", ".join(results.task_names),
        "objectives": results.directions(),
        "trials wanted": ", ".join(f"{study} {n}" for study, n in results.wanted.items()),
        "seed": str(results.seed),
        "date": results.date,
        "machine": ", ".join(f"{name} {value}" for name, value in results.machine.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in results.versions.items()),
    }
    notes = [f"- {note}" for note in results.notes]
    return ["## What was run", "", *(f"- {k}: {v}" for k, v in facts.items()), *notes, ""]


# ------------------------------------------------------------------------------- the picture


def _picture(results: Results, front: pd.DataFrame) -> bytes:
    """Draw the test objectives: strip (1), axes (2), three panels (3) or parallel lines (more)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    m = len(results.objectives)
    pairs = list(combinations(range(m), 2)) if m in (2, 3) else [(0, 0)]
    width = {1: 7.0, 2: 7.0, 3: 14.0}.get(m, max(7.5, 1.7 * m))
    figure = Figure(figsize=(width, 5.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    trials = {study: results.usable(study) for study in STUDIES}
    fronts = {study: front[front["study"] == study] for study in STUDIES}
    outside = np.zeros(sum(map(len, trials.values())), dtype=np.bool_)
    for panel, pair in zip(panels, pairs, strict=True):
        if not outside.size:
            panel.text(0.5, 0.5, "no complete trial", ha="center", transform=panel.transAxes)
            panel.set_axis_off()
        elif m == 1:
            outside |= _strip(panel, results, trials, fronts)
        elif m <= 3:
            outside |= _scatter(panel, results, trials, fronts, pair)
        else:
            outside |= _parallel(panel, results, trials, fronts)
    if outside.size:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    if outside.any():
        text = f"{outside.sum()} of {outside.size} complete trials reach outside the picture"
        figure.supxlabel(text, fontsize=9, color="0.35")
    buffer = io.BytesIO()
    described = {"Title": results.name, "Description": "\n".join(_run(results))}
    figure.savefig(buffer, format="png", metadata=described)
    return buffer.getvalue()


def _plain(text: str, width: int = 40) -> str:
    return textwrap.fill(text.replace("$", r"\$"), width)  # a bare "$" would start a formula


def _label(results: Results, i: int) -> str:
    return f"test {_plain(results.objectives[i])}\n({_better(results.maximise[i])})"


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
        look["label"] = f"{study}, front"
    panel.plot(x, y, linestyle="none", color=COLOUR[study], marker=MARKER[study], **look)


def _scatter(
    panel: Axes, results: Results, trials: Trials, fronts: Trials, pair: tuple[int, int]
) -> Mask:
    """Two objectives against each other; returns which trials the panel leaves out."""
    every, chosen = (results.values(pd.concat(f.values()), "test") for f in (trials, fronts))
    i, j = pair
    limits = [_window(chosen[:, k], every[:, k]) for k in pair]
    for study in STUDIES:
        for rows, strong in ((trials[study], False), (fronts[study], True)):
            if len(rows):
                points = results.values(rows, "test")
                _dots(panel, study, points[:, i], points[:, j], strong)
    if len(results.objectives) == 2 and len(fronts["scalarization"]):
        # What scalarization attains: its steps run on to the worse edges of the picture.
        sign = np.where(results.maximise, -1.0, 1.0)
        points = results.minimised(fronts["scalarization"], "test")
        points = points[non_dominated(points)]
        points = points[np.argsort(points[:, 0])]
        edge = (sign[:, None] * np.array(limits)).max(axis=1)
        path = sign * np.vstack([[points[0, 0], edge[1]], points, [edge[0], points[-1, 1]]])
        look: dict[str, Any] = {"color": COLOUR["scalarization"], "linewidth": 1.2}
        panel.plot(*path.T, drawstyle="steps-post", label="attained by scalarization", **look)
    panel.set(xlim=limits[0], ylim=limits[1], xlabel=_label(results, i), ylabel=_label(results, j))
    panel.grid(alpha=0.25)
    return _beyond(every[:, i], limits[0]) | _beyond(every[:, j], limits[1])


def _strip(panel: Axes, results: Results, trials: Trials, fronts: Trials) -> Mask:
    """Sort the trials of each study by the one objective; its front is one point."""
    every, chosen = (results.values(pd.concat(f.values()), "test") for f in (trials, fronts))
    limits = _window(chosen[:, 0], every[:, 0])
    for study in STUDIES:
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
    for study in STUDIES:
        for rows, strong in ((trials[study], False), (fronts[study], True)):
            look: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.15}
            if strong:
                look = {"linewidth": 1.4, "marker": MARKER[study], "markersize": 7, "zorder": 3}
            z = (results.minimised(rows, "test") - ideal) / span
            for n, line in enumerate(z):
                label = f"{study}, front" if strong and n == 0 else None
                panel.plot(line, color=COLOUR[study], label=label, **look)
    worst = ideal + span
    ticks = [
        f"{_plain(name, 18)}\nbest {-a if up else a:.3g}\nworst {-b if up else b:.3g}"
        for name, up, a, b in zip(results.objectives, results.maximise, ideal, worst, strict=True)
    ]
    panel.set_xticks(range(len(ticks)), ticks, fontsize=9)
    panel.set(ylim=limits, ylabel="test objectives, scaled by the fronts\n(lower is better)")
    panel.grid(alpha=0.25)
    beyond: Mask = np.any(_beyond((every - ideal) / span, limits), axis=1)
    return beyond
