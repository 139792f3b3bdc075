"""What a trial is measured on: data in three parts, an estimator, objectives."""

from __future__ import annotations

import hashlib
import inspect
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import Bunch

from mtlsk.component import closest, import_object
from mtlsk.datasets import MAKERS, load_table, split_rows
from mtlsk.datasets._columns import feature_column, target_column
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.scorers import SCORERS
from mtlsk.search import SearchSpace, choices_of
from mtlsk.studyfile import DataSection, StudyError, StudyFile

PARTS = ("train", "validation", "test")
MAX_CATEGORIES = 50
"""One-hot columns a text column may become; its rarer values share one."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What one trial measured: objectives on validation and test, test losses, seconds."""

    validation: list[float]
    test: list[float]
    test_losses: list[float]
    seconds: float

    @property
    def finite(self) -> bool:
        """Whether all objectives are finite."""
        return bool(np.isfinite([*self.validation, *self.test]).all())


@dataclass(frozen=True)
class Problem:
    """Data in three parts, prepared on the training part alone, with what is measured on it.

    Attributes
    ----------
    parts : dict of str to (X, y)
        "train", "validation" and "test".
    objectives : list of str
        Names; ``maximise`` says which way each goes.
    notes : list of str
        What was done to the data, in sentences.
    """

    name: str
    sha256: str
    task_names: list[str]
    parts: dict[str, tuple[Array, Array]]
    notes: list[str]
    objectives: list[str]
    maximise: list[bool]

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.task_names)

    @property
    def n_rows(self) -> dict[str, int]:
        """Rows of each part."""
        return {part: len(self.parts[part][0]) for part in PARTS}

    @classmethod
    def load(cls, study: StudyFile) -> Problem:
        """Read, split and prepare the data of a study file.

        Raises
        ------
        StudyError, ValueError or OSError
            In one line, for data that is missing or not what the file says.
        """
        bunch = load(study.data)
        rows = split_rows(
            len(bunch.data),
            study.data.split,
            frame=bunch.get("frame", bunch.data),
            random_state=study.study.seed,
        )
        where = {part: rows == part for part in PARTS}
        X, notes = prepare(bunch.data, where["train"], scale=study.data.scale_X)
        y, scaled = prepare_targets(bunch.target, where, scale=study.data.scale_y)
        task_names = [str(c) for c in bunch.target.columns]
        objectives, maximise = resolve_objectives(study.study.objectives, task_names)
        missing = int(np.isnan(y).sum())
        if missing:
            notes.append(f"{missing} of {y.size} labels are missing and take no part.")
        return cls(
            name=bunch.name,
            sha256=bunch.sha256,
            task_names=task_names,
            parts={part: (X[where[part]], y[where[part]]) for part in PARTS},
            notes=[f"Rows are split {study.data.split!r}.", *notes, scaled],
            objectives=objectives,
            maximise=maximise,
        )

    def training(self) -> tuple[Array, pd.DataFrame]:
        """Return X and y of the training part, as ``fit`` takes them."""
        X, y = self.parts["train"]
        return X, pd.DataFrame(y, columns=self.task_names)

    def evaluate(self, params: dict[str, Any]) -> Evaluation:
        """Fit an estimator with these parameters on the training part and measure it."""
        start = time.perf_counter()
        net = MultiTaskRegressor(**params).fit(*self.training())
        return self.measure(net, time.perf_counter() - start)

    def measure(self, net: MultiTaskRegressor, seconds: float) -> Evaluation:
        """Measure a fitted net, whose fit took so many seconds."""
        start = time.perf_counter()
        values, losses = {}, {}
        for part in ("validation", "test"):
            X, y = self.parts[part]
            prediction = net.predict(X).reshape(y.shape)
            losses[part] = np.nanmean((y - prediction) ** 2, axis=0)
            values[part] = [self._objective(o, net, X, y, losses[part]) for o in self.objectives]
        seconds += time.perf_counter() - start
        return Evaluation(
            values["validation"], values["test"], losses["test"].tolist(), round(seconds, 3)
        )

    def _objective(self, name: str, net: Any, X: Array, y: Array, losses: Array) -> float:
        if name in SCORERS:
            return float(SCORERS[name](net, X, y))
        if name == "mean":
            return float(losses.mean())
        if name == "worst":
            return float(losses.max())
        return float(losses[self.task_names.index(name.removeprefix("loss "))])


def load(section: DataSection) -> Bunch:
    """Return the Bunch that a [data] table names, with name, sha256 and data frames."""
    kind, _, column = section.split.partition(":")
    held_back = [column] if kind in ("group", "column") and column else []
    if section.path is not None:
        drop = [*section.drop, *(c for c in held_back if c not in section.drop)]
        assert section.targets is not None
        bunch: Bunch = load_table(section.path, section.targets, drop=drop)
        return bunch
    assert section.name is not None
    if ":" in section.name:
        maker = import_object(section.name)
    elif section.name in MAKERS:
        maker = MAKERS[section.name]
    else:
        raise StudyError(
            f"[data] unknown name {section.name!r}{closest(section.name, MAKERS)}; allowed: "
            f"{', '.join(MAKERS)}, 'module:function', or path = \"table.csv\""
        )
    try:
        inspect.signature(maker).bind(**section.options)
    except TypeError as error:
        raise StudyError(f"[data] options of {section.name!r}: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a failed download says so itself
            made = maker(**section.options)
    except Exception as error:
        raise StudyError(f"[data] {section.name!r}: {type(error).__name__}: {error}") from error
    if isinstance(made, tuple) and len(made) == 2:
        made = Bunch(data=made[0], target=made[1])
    if not (hasattr(made, "data") and hasattr(made, "target")):
        raise StudyError(
            f"[data] {section.name!r} returned a {type(made).__name__}; it must return (X, y) or "
            "a Bunch with data and target"
        )
    data, target = pd.DataFrame(made.data), pd.DataFrame(made.target)
    if len(data) != len(target) or not len(data):
        raise StudyError(f"[data] {section.name!r}: X has {len(data)} rows and y {len(target)}")
    data.columns = [str(c) for c in made.get("feature_names", data.columns)]
    target.columns = [str(c) for c in made.get("target_names", target.columns)]
    target = choose_targets(target, section.targets, section.name)
    frame = made.get("frame", data)
    for dropped in section.drop:
        if dropped not in data:
            raise StudyError(
                f"[data] drop names {dropped!r}{closest(dropped, data.columns)}, which is no "
                f"column of {section.name!r}"
            )
    data = data.apply(lambda column: feature_column(column, str(column.name)))
    target = target.apply(lambda column: target_column(column, str(column.name)))
    digest = hashlib.sha256()
    for table in (data, target):
        digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    return Bunch(
        data=data.drop(columns=[c for c in [*section.drop, *held_back] if c in data]),
        target=target.astype(float),
        frame=data if frame is None else frame,
        name=section.name.rpartition(":")[2],
        sha256=digest.hexdigest(),
    )


def choose_targets(target: pd.DataFrame, wanted: Any, name: str) -> pd.DataFrame:
    """Return the wanted columns of a maker's targets: all, the last n, or those named."""
    if wanted is None:
        return target
    if isinstance(wanted, int):
        if wanted > target.shape[1]:
            raise StudyError(f"[data] targets={wanted}: {name!r} has only {target.shape[1]}")
        return target.iloc[:, -wanted:]
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for column in names:
        if column not in target:
            raise StudyError(
                f"[data] {name!r} has no target {column!r}{closest(column, target.columns)}; "
                f"its targets: {', '.join(target.columns)}"
            )
    return target[names]


def prepare(
    data: pd.DataFrame, train: NDArray[np.bool_], *, scale: bool
) -> tuple[Array, list[str]]:
    """Return X for all rows, prepared by a pipeline fitted on the training rows, and what it did.

    Numbers are imputed by the median and scaled to unit variance, text is imputed by the most
    frequent value and one-hot encoded.
    """
    text = [c for c in data if not pd.api.types.is_numeric_dtype(data[c])]
    numbers = [c for c in data if c not in text]
    as_numbers = [SimpleImputer(strategy="median", keep_empty_features=True)]
    as_text = make_pipeline(
        SimpleImputer(strategy="most_frequent", missing_values=None, keep_empty_features=True),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=MAX_CATEGORIES),
    )
    columns = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(*as_numbers, *([StandardScaler()] if scale else [])),
                numbers,
            ),
            ("text", as_text, text),
        ]
    )
    table = data.copy()
    for column in text:  # one kind of missing value for the imputer
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    columns.fit(table[train])
    notes = []
    if scale and numbers:
        notes.append("Numeric features are standardised on the training part.")
    if text:
        notes.append(f"Text columns are one-hot encoded: {', '.join(map(str, text))}.")
    missing = int(data.isna().sum().sum())
    if missing:
        notes.append(
            f"{missing} missing feature values are imputed: numbers by the median, text by the "
            "most frequent value of the training part."
        )
    return np.asarray(columns.transform(table), dtype=np.float64), notes


def prepare_targets(
    target: pd.DataFrame, where: dict[str, NDArray[np.bool_]], *, scale: bool
) -> tuple[Array, str]:
    """Return y for all rows, standardised on the training rows if asked, and a sentence on it."""
    y = target.to_numpy(dtype=np.float64)
    for part, rows in where.items():
        empty = np.isnan(y[rows]).all(axis=0)
        if empty.any():
            raise StudyError(
                f"target {target.columns[int(empty.argmax())]!r} has no label in the {part} part; "
                "leave it out of targets or choose another split"
            )
    if not scale:
        return y, "Targets are as given: losses are mean squared errors in the targets' units."
    scaler = StandardScaler().fit(y[where["train"]])
    return np.asarray(scaler.transform(y)), (
        "Targets are standardised on the training part: a loss of 1 is that of predicting the mean."
    )


def resolve_objectives(
    wanted: str | list[str] | None, task_names: list[str]
) -> tuple[list[str], list[bool]]:
    """Return the objectives' names and which of them are maximised.

    None means one loss a task for up to three tasks, and mean and worst task loss beyond.
    """
    if wanted is None:
        wanted = "task_losses" if len(task_names) <= 3 else ["mean", "worst"]
    if wanted == "task_losses":
        return [f"loss {name}" for name in task_names], [False] * len(task_names)
    allowed = ["mean", "worst", *SCORERS]
    if not wanted or isinstance(wanted, str):
        raise StudyError(f"[study] objectives={wanted!r} is empty; use 'task_losses' or a list")
    for name in wanted:
        if name not in allowed:
            raise StudyError(
                f"[study] unknown objective {name!r}{closest(name, allowed)}; allowed: "
                f"'task_losses', or a list of {', '.join(allowed)}"
            )
    if len(set(wanted)) < len(wanted):
        raise StudyError(f"[study] objectives={wanted!r} names one twice; name each once")
    return list(wanted), [name in SCORERS for name in wanted]


def check_space(space: SearchSpace, problem: Problem) -> None:
    """Build one net for every choice the space names, so that wrong parameters show at once."""
    X, y = (a[:64] for a in problem.parts["train"])
    for fixed in rehearsals(space):
        try:
            params = space.suggest(Rehearsal(fixed), problem.n_tasks)
            MultiTaskRegressor(**params).initialize_for(X, np.nan_to_num(y))
        except (ValueError, TypeError) as error:
            raise StudyError(f"[estimator] or [search]: {error}") from None


def rehearsals(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Yield stored parameters that between them take every choice of a space once."""
    yield {}
    for owner, words in space.choices.items():
        yield from ({owner: word} for word in words)
    for word, found in space.classes("aggregator").items():  # each with the controllers that fit
        for controller in space.choices.get("controller", []):
            own = f"controller[{'' if found is None else found.__name__}]"
            yield {"aggregator": word, "controller": controller, own: controller}
    for name, domain in space.own.items():
        yield from ({name: value} for value in choices_of(domain))
    for (owner, cls, parameter), domain in space.parts.items():
        for word, found in space.classes(owner).items():
            if found is not None and found.__name__ == cls:
                stored = f"{owner}[{cls}]__{parameter}"
                yield from ({owner: word, stored: value} for value in choices_of(domain))


class Rehearsal:
    """A stand-in for a trial: takes the first choice, or the one asked for, and the middle."""

    def __init__(self, fixed: dict[str, Any]) -> None:
        self.fixed = fixed

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        """Return the middle."""
        return low + 0.5 * (high - low)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        """Return the middle."""
        return (low + high) // 2

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return the one asked for, or the first."""
        wanted = self.fixed.get(name)
        return wanted if wanted in list(choices) else next(iter(choices))
