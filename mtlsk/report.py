"""The report of a study: two CSVs, a page of Markdown and a picture, written all or none.

Each front is chosen on the validation objectives and judged on the test objectives, which no trial
has seen: indicators, masks and the verdict are test values throughout.
"""

from __future__ import annotations

import os
import re
import socket
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mtlsk.figure import picture
from mtlsk.outcome import SCALARIZATION, SEARCH, Results
from mtlsk.pareto import Comparison, compare_fronts, non_dominated

if TYPE_CHECKING:
    pass

__all__ = ["Results", "write_report"]

STUDIES = (SEARCH, SCALARIZATION)
Trials = dict[str, pd.DataFrame]

SHOWN = 20


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
            "pareto.png": picture(results, front, "\n".join(_run(results))),
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
