"""The trials of a stored study as a table, and all that a report says of it."""

from __future__ import annotations

import contextlib
import datetime
import gc
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from mtlsk.models import load_trace, trace_path
from mtlsk.outcome import SEARCH
from mtlsk.problem import loss_objective
from mtlsk.scorers import SCORERS
from mtlsk.studyfile import StudyError
from mtlsk.trials import SCHEMA, load_study, study_names

Key = tuple[str, int]


def read_results(name: str, storage: RDBStorage, out: Path | None = None) -> dict[str, Any]:
    """Return all that a report needs of a stored study, as keyword arguments of ``Results``.

    Parameters
    ----------
    name : str
    storage : RDBStorage
    out : Path or None
        Folder of the results, for the traces of kept trials.

    Raises
    ------
    StudyError
        If there is no such study, or it is another version's.
    """
    stored = optuna.get_all_study_names(storage)
    if name not in stored:
        listed = ", ".join(sorted(n for n in stored if "/" not in n)) or "none"
        raise StudyError(f"the storage holds no study {name!r}; it holds: {listed}")
    studies = {w: load_study(storage, n) for w, n in study_names(name).items() if n in stored}
    about = studies[SEARCH].user_attrs.get("mtlsk")
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise StudyError(f"study {name!r} was written by another version of mtlsk")
    with _uncollected():
        every = {which: study.get_trials(deepcopy=False) for which, study in studies.items()}
    began = [t.datetime_start for trials in every.values() for t in trials]
    first = min((d for d in began if d is not None), default=datetime.datetime.now())
    stopped = studies[SEARCH].user_attrs.get("stopped")
    n_repeats = about["study"]["study"]["repeats"]
    return {
        "name": name,
        "date": first.date().isoformat(),
        "data_name": about["data"]["name"],
        "data_sha256": about["data"]["sha256"],
        **{k: about[k] for k in ("n_rows", "objectives", "maximise", "task_names")},
        "notes": [*about["notes"], *([stopped] if stopped else [])],
        "trials": trials_frame(every, about),
        "seed": about["seed"],
        "wanted": {w: s.user_attrs.get("wanted", 0) for w, s in studies.items()},
        **studies[SEARCH].user_attrs.get("ran", {"machine": {}, "versions": {}}),
        "n_repeats": n_repeats,
        "repeats": repeats_frame(every, about) if n_repeats > 1 else None,
        "file": {
            **about["study"],
            "data": {**about["study"]["data"], "name": about["data"]["name"]},
        },
        "estimators": {
            (which, t.number): t.user_attrs["estimator"]
            for which, trials in every.items()
            for t in trials
            if t.state is TrialState.COMPLETE and "estimator" in t.user_attrs
        },
        "traces": {} if out is None else traces(every, out),
    }


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leave garbage collection for later: of thousands of trials it is a third of the reading."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def traces(every: Mapping[str, list[FrozenTrial]], out: Path) -> dict[Key, dict[str, Any]]:
    """Return the traces of the complete trials that are kept in a folder."""
    keys = [(w, t.number) for w, ts in every.items() for t in ts if t.state is TrialState.COMPLETE]
    return {key: load_trace(out, *key) for key in keys if trace_path(out, *key).exists()}


def trials_frame(every: Mapping[str, list[FrozenTrial]], about: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row a trial that counts: its parameters, objectives and losses."""
    rows = []
    for which, trials in every.items():
        for trial in trials:
            failed = trial.state is TrialState.FAIL and "failed" in trial.user_attrs
            if not (trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or failed):
                continue
            measured = trial.user_attrs.get("measured", {})
            reason = trial.user_attrs.get("failed") or trial.user_attrs.get("pruned", "")
            row: dict[str, Any] = {
                "study": which,
                "number": trial.number,
                "state": trial.state.name,
                "reason": reason,
                "seconds": measured.get("seconds"),
            }
            row |= {f"param: {k}": v for k, v in trial.params.items()}
            row |= _simplexes(trial.params, trial.user_attrs.get("estimator", {}))
            if trial.state is TrialState.COMPLETE:
                for part in ("validation", "test"):
                    values = (measured["objectives"][part], measured["losses"][part])
                    row |= _columns(part, values, about)
            rows.append(row)
    head = ["study", "number", "state", "reason", "seconds"]
    frame = pd.DataFrame(rows)
    parameters = sorted(c for c in frame.columns if c.startswith("param: "))
    return frame.reindex(columns=[*head, *parameters, *_names(about)])


def repeats_frame(every: Mapping[str, list[FrozenTrial]], about: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row a repeat of a complete trial: its objectives and losses."""
    rows = []
    for which, trials in every.items():
        for trial in trials:
            if trial.state is not TrialState.COMPLETE:
                continue
            for repeat, parts in enumerate(trial.user_attrs["measured"].get("repeats", [])):
                row = {"study": which, "number": trial.number, "repeat": repeat}
                for part, values in parts.items():
                    row |= _columns(part, values, about)
                rows.append(row)
    return pd.DataFrame(rows, columns=["study", "number", "repeat", *_names(about)])


def _names(about: Mapping[str, Any]) -> list[str]:
    objectives = [f"{p}: {o}" for o in about["objectives"] for p in ("validation", "test")]
    losses = [f"{p} loss: {t}" for p in ("validation", "test") for t in about["task_names"]]
    return [*objectives, *losses]


def _columns(part: str, values: Any, about: Mapping[str, Any]) -> dict[str, float]:
    """Return column -> number of one part's (objectives, losses)."""
    objectives, losses = values
    tasks = about["task_names"]
    if not objectives:  # nets of one task each: what is made of losses can be said of them too
        array = np.array(losses)
        objectives = [
            float("nan") if name in SCORERS else loss_objective(name, array, tasks)
            for name in about["objectives"]
        ]
    found = {f"{part}: {o}": v for o, v in zip(about["objectives"], objectives, strict=True)}
    return found | {f"{part} loss: {t}": v for t, v in zip(tasks, losses, strict=True)}


def _simplexes(params: Mapping[str, Any], estimator: Mapping[str, Any]) -> dict[str, float]:
    """Return the points of the simplex instead of the numbers Optuna makes them from.

    Weights that were not searched but drawn are among them.
    """
    bases = {match[1] for name in params if (match := re.fullmatch(r"(.+)\[\d+\]", name))}
    if isinstance(estimator.get("aggregator__weights"), list):
        bases.add("aggregator[LinearScalarization]__weights")
    found: dict[str, float] = {}
    for base in bases:
        vector = estimator.get(re.sub(r"\[.*?\]", "", base), [])
        found |= {f"param: {base}[{k}]": value for k, value in enumerate(vector)}
    return found
