"""What a trial is measured on: data in parts or folds, and objectives."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import Bunch

from mtlsk.component import closest, import_object
from mtlsk.datasets import MAKERS, fold_rows, load_table, split_rows
from mtlsk.datasets._columns import feature_column, target_column
from mtlsk.estimators import MultiTaskRegressor
from mtlsk.preparation import Preparation
from mtlsk.scorers import SCORERS
from mtlsk.search import SearchSpace
from mtlsk.search_entries import choices_of
from mtlsk.studyfile import DataSection, StudyError, StudyFile

PARTS = ("train", "validation", "test")
ALL = slice(None)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Predict = Callable[[Array], Array]
Measures = dict[str, tuple[list[float], list[float]]]


@dataclass(frozen=True, eq=False)
class Fold:
    """One fit of a trial: the rows it trains on, and those it is measured on, prepared by it.

    Attributes
    ----------
    preparation : Preparation
        Learnt from the training rows alone.
    train : (X, y)
    measured : dict of str to (X, y)
        "validation", "test" or both.
    """

    preparation: Preparation
    train: tuple[Array, Array]
    measured: dict[str, tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Problem:
    """Data in parts or folds, each prepared on its training rows alone, with what is measured.

    Attributes
    ----------
    folds : tuple of Fold
        The fits that one trial is, once a seed. Without cross-validation one, measured on
        validation and test; with it one a fold, measured on the fold, and a last one, trained on
        all of them and measured on the test part. The last one's net is the trial's model.
    n_rows : dict
        Rows of each part.
    objectives : list of str
        Names; ``maximise`` says which way each goes.
    notes : list of str
        What was done to the data, in sentences.
    """

    name: str
    sha256: str
    feature_names: list[str]
    task_names: list[str]
    folds: tuple[Fold, ...]
    n_rows: dict[str, int]
    notes: list[str]
    objectives: list[str]
    maximise: list[bool]

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.task_names)

    @classmethod
    def load(cls, study: StudyFile) -> Problem:
        """Read, split and prepare the data of a study file.

        Raises
        ------
        StudyError, ValueError or OSError
            In one line, for data that is missing or not what the file says.
        """
        section = study.data
        bunch = load(section)
        target = bunch.target.to_numpy(dtype=np.float64)
        frame = bunch.get("frame", bunch.data)
        rows, number = _rows(section, len(bunch.data), frame, study.study.seed)
        where = {part: rows == part for part in PARTS}
        cuts = [(where["train"], {part: where[part] for part in PARTS[1:]})]
        n_rows = {part: int(mask.sum()) for part, mask in where.items()}
        notes = [f"Rows are split {section.split!r}."]
        if number is not None:
            assert section.folds is not None
            cuts = [
                ((number >= 0) & (number != i), {"validation": number == i})
                for i in range(section.folds)
            ]
            cuts.append((number >= 0, {"test": where["test"]}))
            n_rows = {"train and validation": int((number >= 0).sum()), "test": n_rows["test"]}
            notes.append(
                f"Validation is {section.folds}-fold cross-validation; the test part is measured "
                "on a net trained on all folds."
            )
        folds = tuple(_fold(section, bunch.data, bunch.target, *cut) for cut in cuts)
        task_names = [str(c) for c in bunch.target.columns]
        objectives, maximise = resolve_objectives(study.study.objectives, task_names)
        return cls(
            name=bunch.name,
            sha256=bunch.sha256,
            feature_names=[str(c) for c in bunch.data.columns],
            task_names=task_names,
            folds=folds,
            n_rows=n_rows,
            notes=[*notes, *_notes(section, bunch.data, folds[-1].preparation, target)],
            objectives=objectives,
            maximise=maximise,
        )

    def training(self, fold: Fold, tasks: slice = ALL) -> tuple[Array, pd.DataFrame]:
        """Return X and y of a fold's training rows, as ``fit`` takes them."""
        X, y = fold.train
        return X, pd.DataFrame(y[:, tasks], columns=self.task_names[tasks])

    def measure(self, fold: Fold, predict: Predict, net: Any = None) -> Measures:
        """Return part -> (objectives, losses of the tasks) of a fold's fit.

        Parameters
        ----------
        fold : Fold
        predict : callable
            X -> predictions (n, K).
        net : fitted net or None
            What scorers are given; None measures nothing but losses: no objectives.
        """
        found = {}
        for part, (X, y) in fold.measured.items():
            losses = task_losses(y, predict(X))
            values = []
            if net is not None:
                values = [self._objective(o, net, X, y, losses) for o in self.objectives]
            found[part] = (values, losses.tolist())
        return found

    def _objective(self, name: str, net: Any, X: Array, y: Array, losses: Array) -> float:
        if name in SCORERS:
            return float(SCORERS[name](net, X, y))
        return loss_objective(name, losses, self.task_names)


def task_losses(y: Array, prediction: Array) -> Array:
    """Return the mean squared error of each task, (K,), over the labels that there are."""
    there = ~np.isnan(y)  # a prediction that is NaN is no label that is missing
    squares = np.where(there, (y - prediction.reshape(y.shape)) ** 2, 0.0)
    return np.asarray(squares.sum(axis=0) / there.sum(axis=0))


def loss_objective(name: str, losses: Array, task_names: list[str]) -> float:
    """Return an objective that is made of the tasks' losses: "mean", "worst" or "loss TASK"."""
    if name == "mean":
        return float(losses.mean())
    if name == "worst":
        return float(losses.max())
    return float(losses[task_names.index(name.removeprefix("loss "))])


def _rows(
    section: DataSection, n: int, frame: pd.DataFrame, seed: int
) -> tuple[NDArray[np.str_], NDArray[np.int64] | None]:
    """Return the part of each row, and its fold where there are folds."""
    try:
        rows = split_rows(n, section.split, frame=frame, random_state=seed)
        if section.folds is None:
            return rows, None
        return rows, fold_rows(rows, section.split, section.folds, frame=frame, random_state=seed)
    except ValueError as error:
        raise StudyError(f"[data] {error}") from None


def _fold(
    section: DataSection,
    data: pd.DataFrame,
    target: pd.DataFrame,
    train: Mask,
    measured: dict[str, Mask],
) -> Fold:
    y = target.to_numpy(dtype=np.float64)
    for part, mask in {"train": train, **measured}.items():
        empty = np.isnan(y[mask]).all(axis=0)
        if empty.any():
            raise StudyError(
                f"[data] target {target.columns[int(empty.argmax())]!r} has no label in the "
                f"{part} part; leave it out of targets or choose another split"
            )
    made = Preparation.fit(data[train], y[train], scale_X=section.scale_X, scale_y=section.scale_y)
    X, y = made.features(data), made.targets(y)
    return Fold(made, (X[train], y[train]), {part: (X[m], y[m]) for part, m in measured.items()})


def _notes(
    section: DataSection, data: pd.DataFrame, preparation: Preparation, target: Array
) -> list[str]:
    """Return what was done to the columns, in sentences."""
    text, notes = preparation.text, []
    if section.scale_X and len(text) < data.shape[1]:
        notes.append("Numeric features are standardised on the training part.")
    if text:
        notes.append(f"Text columns are one-hot encoded: {', '.join(map(str, text))}.")
    missing = int(data.isna().sum().sum())
    if missing:
        notes.append(
            f"{missing} missing feature values are imputed: numbers by the median, text by the "
            "most frequent value of the training part."
        )
    missing = int(np.isnan(target).sum())
    if missing:
        notes.append(f"{missing} of {target.size} labels are missing and take no part.")
    notes.append(
        "Targets are standardised on the training part: a loss of 1 is that of predicting the mean."
        if section.scale_y
        else "Targets are as given: losses are mean squared errors in the targets' units."
    )
    return notes


def load(section: DataSection) -> Bunch:
    """Return the Bunch that a [data] table names, with name, sha256 and data frames."""
    kind, _, column = section.split.partition(":")
    held_back = [column] if kind in ("group", "column") and column else []
    if section.path is not None:
        drop = [*section.drop, *(c for c in held_back if c not in section.drop)]
        assert section.targets is not None
        try:
            bunch: Bunch = load_table(section.path, section.targets, drop=drop)
        except ValueError as error:
            text = str(error)
            if text.startswith("drop names") and repr(column) in text:  # it is the split's word
                text = text.replace("drop", f"split={section.split!r}", 1)
            raise StudyError(f"[data] {text}") from None
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
    allowed = ["mean", "worst", *SCORERS, *(f"loss {name}" for name in task_names)]
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
    X, y = (a[:64] for a in problem.folds[0].train)
    for fixed in rehearsals(space):
        try:
            params = space.suggest(Rehearsal(fixed), problem.n_tasks)
            MultiTaskRegressor(**params).initialize_for(X, np.nan_to_num(y))
        except (ValueError, TypeError) as error:
            preset = fixed.get("preset")
            table = "[estimator] or [search]" if preset is None else f"[presets.{preset}]"
            raise StudyError(f"{table}: {error}") from None


def rehearsals(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Yield stored parameters that between them take every choice of a space once."""
    for preset in space.presets:
        yield from ({"preset": preset, **inner} for inner in rehearsals(space.at(preset)))
    if space.presets:
        return
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
