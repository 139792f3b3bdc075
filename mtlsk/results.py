"""The trials of a stored study as a table, and all that a report says of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import optuna
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from mtlsk.studyfile import StudyError
from mtlsk.trials import SCHEMA, SEARCH, load_study, study_names


def read_results(name: str, storage: RDBStorage) -> dict[str, Any]:
    """Return all that a report needs of a stored study, as keyword arguments of ``Results``.

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
    began = [t.datetime_start for s in studies.values() for t in s.get_trials(deepcopy=False)]
    first = min((d for d in began if d is not None), default=datetime.datetime.now())
    return {
        "name": name,
        "date": first.date().isoformat(),
        "data_name": about["data"]["name"],
        "data_sha256": about["data"]["sha256"],
        **{k: about[k] for k in ("n_rows", "notes", "objectives", "maximise", "task_names")},
        "trials": trials_frame(studies, about),
        "seed": about["seed"],
        "wanted": {w: s.user_attrs.get("wanted", 0) for w, s in studies.items()},
        **studies[SEARCH].user_attrs.get("ran", {"machine": {}, "versions": {}}),
    }


def trials_frame(studies: Mapping[str, optuna.Study], about: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row a trial that counts: its parameters, objectives and test losses."""
    rows = []
    for which, study in studies.items():
        for trial in study.get_trials(deepcopy=False):
            failed = trial.state is TrialState.FAIL and "failed" in trial.user_attrs
            if not (trial.state is TrialState.COMPLETE or failed):
                continue
            row: dict[str, Any] = {
                "study": which,
                "number": trial.number,
                "state": trial.state.name,
                "reason": trial.user_attrs.get("failed", ""),
                "seconds": trial.user_attrs.get("seconds"),
            }
            row |= {f"param: {k}": v for k, v in trial.params.items()}
            for base, vector in trial.user_attrs.get("simplexes", {}).items():
                row |= {f"param: {base}[{k}]": v for k, v in enumerate(vector)}
            if trial.state is TrialState.COMPLETE:
                for i, objective in enumerate(about["objectives"]):
                    row[f"validation: {objective}"] = trial.values[i]
                    row[f"test: {objective}"] = trial.user_attrs["test"][i]
                for task, loss in zip(
                    about["task_names"], trial.user_attrs["test_losses"], strict=True
                ):
                    row[f"test loss: {task}"] = loss
            rows.append(row)
    columns = ["study", "number", "state", "reason", "seconds"]
    for objective in about["objectives"]:
        columns += [f"validation: {objective}", f"test: {objective}"]
    columns += [f"test loss: {task}" for task in about["task_names"]]
    frame = pd.DataFrame(rows)
    parameters = sorted(c for c in frame.columns if c.startswith("param: "))
    return frame.reindex(columns=columns[:5] + parameters + columns[5:])
