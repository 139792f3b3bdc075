"""What one run of a study came to: all that its report says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mtlsk.pareto import Mask, Values

SEARCH = "search"
SCALARIZATION = "scalarization"
EQUAL_WEIGHTS = "equal_weights"
SINGLE_TASK = "single_task"
BASELINES = (SCALARIZATION, EQUAL_WEIGHTS, SINGLE_TASK)
STUDIES = (SEARCH, *BASELINES)
"""What a study consists of; baselines may be left out."""


def better(maximise: bool) -> str:
    """Say which way an objective goes."""
    return "higher is better" if maximise else "lower is better"


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
        One row a trial that counts: `study` (one of ``STUDIES``), `number`, `state` ("COMPLETE",
        "FAIL" or "PRUNED"), `reason` (why it failed or was pruned), `seconds` (of trials that were
        trained in one run an equal share of it each), `param: NAME` (what was searched),
        `validation: OBJECTIVE`, `test: OBJECTIVE`, `validation loss: TASK` and `test loss: TASK`;
        all of these are means over the repeats. Trials of "single_task", one net a task, have
        losses and may lack objectives.
    seed : int
    wanted : dict
        Trials wanted of each study that there is, "search" first.
    machine, versions : dict of str
        As `mtlsk.machine` gives them.
    n_repeats : int
        Seeds that each trial was trained with.
    repeats : DataFrame or None
        With more than one repeat, one row a repeat of a complete trial: `study`, `number`,
        `repeat` (0, 1, ...), and the columns of objectives and losses as in `trials`.
    file : dict
        The study file, validated, with the name and sha256 of the data instead of a path.
    estimators : dict
        (study, number) -> keyword arguments of the estimator, searched and fixed, of a complete
        trial.
    traces : dict
        (study, number) -> what a kept trial's training left: lists over epochs named
        "train_losses" (K each) and, where the step has them, "task_weights" (K) and "cosines"
        (K x K, None where a task has no gradient).

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
    n_repeats: int = 1
    repeats: pd.DataFrame | None = None
    file: dict[str, Any] = field(default_factory=dict)
    estimators: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    traces: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

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
        return ", ".join(f"{name} ({better(up)})" for name, up in pairs)
