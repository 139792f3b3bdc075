"""The page of Markdown: the verdict first, then what it rests on."""

from __future__ import annotations

import textwrap

import numpy as np

from mtlsk.comparison import DELTA_M, EVERY_SEED, UNDOMINATED, Fronts
from mtlsk.importance import Importance
from mtlsk.outcome import SCALARIZATION, SEARCH, STUDIES, Results
from mtlsk.pareto import is_exact
from mtlsk.report.text import number, parameters, records, table
from mtlsk.seeds import mean_of

SHOWN = 20


def page(
    results: Results,
    fronts: Fronts,
    verdict: tuple[list[str], list[str]],
    shares: Importance | None,
) -> str:
    """Return the whole page."""
    return "\n".join(
        [
            f"# {results.name}",
            "",
            " ".join(verdict[0]),
            "",
            *(f"- {s}" for s in verdict[1]),
            *([""] if verdict[1] else []),
            *table(*indicators(results, fronts)),
            *(line for text in notes(results, fronts) for line in (text, "")),
            *_front_tables(results, fronts),
            "![The Pareto fronts on the test objectives](pareto.png)",
            "",
            *_task_losses(results, fronts),
            *_importance(shares),
            *_failures(results),
            *_run(results),
        ]
    )


def named(study: str) -> str:
    """Return the name of a study as people read it."""
    return study.replace("_", " ")


def studies_of(results: Results) -> list[str]:
    """Return all studies that were wanted or have trials, in their order."""
    there = set(results.wanted) | set(results.trials["study"]) | {SEARCH}
    return [study for study in STUDIES if study in there]


def indicators(results: Results, fronts: Fronts) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of indicators and counts: a column a study."""
    studies = studies_of(results)
    rows = []

    def row(name: str, cells: dict[str, str]) -> None:
        rows.append([name, *(cells.get(study, "-") for study in studies)])

    if sum(len(front) > 0 for front in fronts.rows.values()) > 1:
        measured = {s: m for s, m in fronts.indicators.items() if len(m.points)}
        row(
            "hypervolume (higher is better)",
            {s: f"{m.hypervolume:.4g}" for s, m in measured.items()},
        )
        row("IGD+ (lower is better)", {s: f"{m.igd_plus:.4g}" for s, m in measured.items()})
        row(
            "additive epsilon (lower is better)",
            {s: f"{m.epsilon:.4g}" for s, m in measured.items()},
        )
        row("points in the front", {s: str(len(m.points)) for s, m in measured.items()})
        other = {
            s: str(int(f[UNDOMINATED].sum()))
            for s, f in fronts.rows.items()
            if len(fronts.rows) > 1
        }
        row("of them undominated by the other", other)
        if fronts.seeds is not None:
            every = {s: f.get(EVERY_SEED) for s, f in fronts.rows.items()}
            row(
                "in every seed",
                {s: str(int(e.sum())) for s, e in every.items() if e is not None},
            )
    if fronts.seeds is not None:
        volumes = {s: mean_of(v) for s, v in fronts.seeds.hypervolumes.items()}
        row(
            "hypervolume over seeds, mean [95 % t-interval]",
            {s: str(mean) for s, mean in volumes.items() if len(fronts.rows[s])},
        )
    if fronts.base:
        changes = {s: f[DELTA_M].to_numpy(dtype=np.float64) for s, f in fronts.rows.items()}
        changes = {s: c[np.isfinite(c)] for s, c in changes.items() if np.isfinite(c).any()}
        row(
            "Delta_m %, best of the front (lower is better)",
            {s: f"{c.min():+.2f}" for s, c in changes.items()},
        )
        row(
            "Delta_m %, median of the front",
            {s: f"{np.median(c):+.2f}" for s, c in changes.items()},
        )
    states = {
        state: {s: len(results.of(s, state)) for s in studies}
        for state in ("COMPLETE", "FAIL", "PRUNED")
    }
    row("trials complete", {s: str(n) for s, n in states["COMPLETE"].items()})
    row("trials failed", {s: str(n) for s, n in states["FAIL"].items()})
    if any(states["PRUNED"].values()):
        row("trials pruned", {s: str(n) for s, n in states["PRUNED"].items()})
    row("trials wanted", {s: str(results.wanted.get(s, "unknown")) for s in studies})
    time = results.trials.groupby("study")["seconds"].sum()
    row("seconds, all trials", {s: f"{time.get(s, 0.0):.4g}" for s in studies})
    return ["", *(named(study) for study in studies)], rows


def notes(results: Results, fronts: Fronts) -> list[str]:
    """Say in sentences what the table of indicators means."""
    said = [
        "Each front was chosen on the validation part and is judged here on the test part, which "
        "no trial saw; so points of one front may dominate each other. Hypervolume, IGD+ and "
        "epsilon are in units of the box that the fronts span together, with the reference point "
        "at 1.1: they rank the fronts and say nothing about the size of the objectives. "
        "Undominated means by no point of scalarization's front, and for scalarization and equal "
        "weights by no searched one."
    ]
    if not all(is_exact(*m.points.shape) for m in fronts.indicators.values()):
        said.append("Hypervolumes of fronts this large are approximated, to well within 1 %.")
    if fronts.seeds is not None:
        said.append(
            f"Objectives and losses are means over {results.n_repeats} seeds. Over the seeds the "
            "trials of a front stay the same, each with what it came to in that seed; the "
            "hypervolume a seed is in the box that all seeds span together."
        )
    if fronts.base:
        said.append(
            "Delta_m is the mean over tasks of the change of a trial's test loss against that of "
            "the best single-task net, in percent, the multi-task convention (Maninis et al., "
            "CVPR 2019) for losses; the best point of a front is the best on test. Single-task "
            "nets: " + ", ".join(f"{task} {loss:.4g}" for task, loss in fronts.base.items()) + "."
        )
    left = {s: len(results.of(s, "COMPLETE")) - len(results.usable(s)) for s in fronts.rows}
    if sum(left.values()):
        said.append(
            f"Left out: {sum(left.values())} complete trials with an objective that is not finite."
        )
    return said


def _front_tables(results: Results, fronts: Fronts) -> list[str]:
    columns = [*results.columns("validation"), *results.columns("test")]
    extra = [DELTA_M] if fronts.base else []
    lines = ["## The fronts", "", f"Objectives: {results.directions()}.", ""]
    rows, more = [], []
    for study, points in fronts.rows.items():
        compared = fronts.compared is not None and study in (SEARCH, SCALARIZATION)
        for row in records(points.head(SHOWN)):
            label = [named(study), number(row["number"]), parameters(row)]
            values = [f"{row[column]:.4g}" for column in columns + extra]
            undominated = "yes" if row[UNDOMINATED] else "no"
            rows.append([*label, *values, undominated if compared else "-"])
        if len(points) > SHOWN:
            more.append(f"{len(points) - SHOWN} more of {named(study)}")
    if not rows:
        return [*lines, "All fronts are empty.", ""]
    head = ["study", "trial", "parameters", *columns, *(["Delta_m %"] if extra else [])]
    lines += table([*head, UNDOMINATED], rows)
    return [*lines, f"In `front.csv`: {' and '.join(more)}.", ""] if more else lines


def best_rows(results: Results, fronts: Fronts) -> tuple[dict[str, int], str]:
    """Return for each front the label of the row that is best on validation, and by what rule."""
    # A mean over the objectives makes sense where there is one a task and all point one way.
    one_each = len(results.objectives) == len(results.task_names)
    mean = one_each and len(set(results.maximise)) == 1
    best = {}
    for study, rows in fronts.rows.items():
        if len(rows):
            scores = results.minimised(rows, "validation")
            at = int((scores.mean(axis=1) if mean else scores[:, 0]).argmin())
            best[study] = int(rows.index[at])
    rule = "mean of the validation objectives" if mean else f"validation {results.objectives[0]}"
    return best, rule


def _task_losses(results: Results, fronts: Fronts) -> list[str]:
    columns = [f"test loss: {task}" for task in results.task_names]
    front = fronts.table()
    if not columns or not set(columns) <= set(front.columns) or not len(front):
        return []
    best, rule = best_rows(results, fronts)
    heads, values = [], []
    for study, index in best.items():
        row = fronts.rows[study].loc[index]
        heads.append(f"{named(study)}, trial {number(row['number'])}")
        values.append(row[columns].to_numpy(dtype=np.float64))
    if fronts.base:
        heads.append("single task, the best of each")
        values.append(np.array(list(fronts.base.values())))
    rows = [[t, *(f"{v[i]:.4g}" for v in values)] for i, t in enumerate(results.task_names)]
    rows.append(["mean", *(f"{v.mean():.4g}" for v in values)])
    return [
        "## Test loss of each task",
        "",
        f"Of each front the point with the best {rule}.",
        "",
        *table(["task", *heads], rows),
    ]


def importance_note(shares: Importance) -> str:
    """Say what importances are and which trials they are over."""
    part = (
        f"{shares.n_trials} trials spread evenly over the {shares.n_complete}"
        if shares.n_trials < shares.n_complete
        else f"the {shares.n_trials}"
    )
    return (
        f"Computed on validation over {part} complete trials of the search (conditional "
        "PED-ANOVA): how much a parameter decides whether a trial is among the best tenth in an "
        "objective, as a share of 1 over the parameters. One that belongs to a component is there "
        "in that component's trials only, as many as its row says; nothing here is a cause."
    )


def _importance(shares: Importance | None) -> list[str]:
    if shares is None:
        return []
    heads = [str(c) for c in shares.shares.columns]
    rows = [
        [name, *(f"{v:.2f}" for v in values), str(shares.trials[name])]
        for name, values in zip(shares.shares.index, shares.shares.to_numpy(), strict=True)
    ]
    return [
        "## Which parameters mattered",
        "",
        importance_note(shares),
        "",
        *table(["parameter", *heads, "trials that have it"], rows),
    ]


def failures(results: Results) -> list[list[str]]:
    """Return study, kind of reason, how many trials, and the first reason, of failed trials."""
    failed = results.trials[results.trials["state"] == "FAIL"]
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in records(failed):
        reason = row["reason"] if isinstance(row["reason"], str) and row["reason"] else "unknown"
        kinds.setdefault((row["study"], reason.partition(":")[0]), []).append(reason)
    return [
        [named(study), kind, str(len(reasons)), textwrap.shorten(reasons[0], 160)]
        for (study, kind), reasons in kinds.items()
    ]


def _failures(results: Results) -> list[str]:
    rows = failures(results)
    head = ["study", "reason", "trials", "the first"]
    return ["## Failed trials", "", *table(head, rows)] if rows else []


def facts(results: Results) -> dict[str, str]:
    """Return what was run, on what and with what."""
    return {
        "data": f"{results.data_name}, sha256 `{results.data_sha256}`",
        "rows": ", ".join(f"{part} {n}" for part, n in results.n_rows.items()),
        "tasks": ", ".join(results.task_names),
        "objectives": results.directions(),
        "trials wanted": ", ".join(f"{named(s)} {n}" for s, n in results.wanted.items()),
        "seed": str(results.seed),
        "seeds a trial": str(results.n_repeats),
        "date": results.date,
        "machine": ", ".join(f"{name} {value}" for name, value in results.machine.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in results.versions.items()),
    }


def about(results: Results) -> list[str]:
    """Return what was run as lines of text."""
    lines = [f"- {k}: {v}" for k, v in facts(results).items()]
    return [*lines, *(f"- {note}" for note in results.notes)]


def _run(results: Results) -> list[str]:
    return ["## What was run", "", *about(results), ""]
