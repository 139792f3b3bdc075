"""What y is: its tasks, their kinds, and labels of any type as one matrix of numbers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target

from mtlsk.component import closest, shown
from mtlsk.modules import KINDS, Task

Labels = NDArray[Any]
WORDS = (*KINDS, "classification")
"""What ``tasks`` may say; "classification" is binary or multiclass by the number of classes."""


class Targets:
    """y as it came, column by column.

    Attributes
    ----------
    columns : list of K arrays of shape (n,), of any type
    names : list of K str
        The columns of a DataFrame, the name of a Series, else y0, y1, ...
    one_dimensional : bool
    from_frame : bool
        Whether y was a DataFrame.

    Raises
    ------
    ValueError
        For y that is missing, or of a wrong shape.
    """

    def __init__(self, y: Any, owner: str = "MultiTaskNet") -> None:
        if y is None:
            raise ValueError(
                f"This {owner} estimator requires y to be passed, but the target y is None; give "
                "the targets, of shape (n_samples,) or (n_samples, K)"
            )
        self.from_frame = isinstance(y, pd.DataFrame)
        names = target_names(y)
        if isinstance(y, pd.DataFrame):
            self.columns = [column_of(y.iloc[:, k]) for k in range(y.shape[1])]
            shape: tuple[int, ...] = y.shape
        else:
            array = self._as_array(y)
            shape = array.shape
            matrix = array.reshape(len(array), -1) if array.ndim == 2 else array[:, None]
            self.columns = [plain(matrix[:, k]) for k in range(matrix.shape[1])]
        if len(shape) not in (1, 2) or shape[-1] == 0:
            raise ValueError(f"y must have shape (n_samples,) or (n_samples, K), got {shape}")
        self.one_dimensional = len(shape) == 1
        count = len(self.columns)
        self.names = names or ([f"y{k}" for k in range(count)] if count > 1 else ["y"])
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"two columns of y are named {min(twice)!r}; name each task once")

    @staticmethod
    def _as_array(y: Any) -> NDArray[Any]:
        if isinstance(y, pd.Series):
            return column_of(y)
        if issparse(y):
            y = y.toarray()
        array = np.asarray(host(y))
        if array.dtype.kind == "T":  # numpy's own strings, which scikit-learn does not know
            array = array.astype(object)
        if array.dtype.kind in "OSU" and array.ndim in (1, 2):
            return array
        checked: NDArray[Any] = check_array(
            y if isinstance(y, list) else array,
            dtype="numeric",
            ensure_2d=False,
            ensure_all_finite=False,
            allow_nd=True,
            input_name="y",
            ensure_min_samples=1,
        )
        if checked.ndim not in (1, 2):
            raise ValueError(
                f"y must have shape (n_samples,) or (n_samples, K), got {checked.shape}"
            )
        return checked

    def __len__(self) -> int:
        return len(self.columns)

    def check_rows(self, X: Any) -> None:
        """Raise ValueError unless y has as many rows as X."""
        check_consistent_length(X, self.columns[0])

    def of(self, tasks: Sequence[Task], dtype: str, *, unseen: str = "raise") -> Labels:
        """Return the labels as numbers (n, K): class indices for classes, NaN where missing.

        Parameters
        ----------
        unseen : "raise" or "mark"
            What a class that is not among the task's leads to: a ValueError, or the index -1.
        """
        if len(tasks) != len(self):
            raise ValueError(
                f"y has {len(self)} tasks, but the net was fitted with {len(tasks)}: "
                f"{', '.join(task.name for task in tasks)}"
            )
        pairs = list(zip(tasks, self.columns, strict=True))
        columns = [
            numbers(task.name, column, dtype)
            if task.classes is None
            else indices(task.name, column, task.classes, unseen)
            for task, column in pairs
        ]
        return np.stack(columns, axis=1).astype(dtype)


def host(y: Any) -> Any:
    """Return an array of any library as one that numpy reads: tensors leave their device."""
    if hasattr(y, "detach") and hasattr(y, "cpu"):
        return y.detach().cpu().numpy()
    if hasattr(y, "__array__") or not hasattr(y, "__dlpack__"):
        return y
    return np.from_dlpack(y)


def target_names(y: Any) -> list[str] | None:
    """Return the names that y brings: the columns of a DataFrame, the name of a Series."""
    if isinstance(y, pd.DataFrame):
        return [str(c) for c in y.columns]
    if isinstance(y, pd.Series) and y.name is not None:
        return [str(y.name)]
    return None


def column_of(series: pd.Series) -> NDArray[Any]:
    """Return a column of a table as an array; objects with None where labels are missing."""
    if isinstance(series.dtype, np.dtype):
        return plain(series.to_numpy())
    return plain(series.astype(object).where(series.notna(), None).to_numpy())


def plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column of objects that are all numbers as numbers; others as they are."""
    if column.dtype != object:
        return column
    kinds = {type(v) for v in column.tolist()}
    return np.array(column.tolist()) if kinds and kinds <= NUMBERS else column


NUMBERS = {int, float, bool, np.float64, np.float32, np.int64, np.int32, np.bool_}


def missing(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where labels of any type are missing: NaN, None, NaT."""
    return np.asarray(pd.isna(column), dtype=bool)


def numbers(name: str, column: NDArray[Any], dtype: str) -> Labels:
    """Return a numeric column, NaN where missing; ValueError for text and infinity."""
    if column.dtype.kind not in "biuf":
        for value in column:
            if isinstance(value, str):
                raise ValueError(
                    f"y holds {value!r}, which is no number; targets of a regression must be "
                    f"numeric (task {name!r})"
                )
        try:
            if column.dtype != object:
                raise TypeError
            column = np.where(missing(column), np.nan, column).astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"y of task {name!r} has dtype {column.dtype}; targets of a regression must be "
                "numeric: integers or floats"
            ) from None
    with np.errstate(over="ignore"):
        values = column.astype(dtype)
    if np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        raise ValueError(
            f"Input y contains infinity or a value too large for dtype({dtype!r}) (row {row}, "
            f"task {name!r}); clip or scale the target, or set it to NaN to mean a missing label"
        )
    return values


def no_label(name: str) -> str:
    """Return what is wrong with a task without a label."""
    return (
        f"Input y contains NaN only for task {name!r}: it has no label at all; leave the task out"
    )


def check_labelled(labels: Labels, tasks: Sequence[Task], *, part: bool = False) -> None:
    """Raise ValueError, naming the task, where a task has no label at all.

    For ``part`` of a stream only where no task has one.
    """
    empty = np.isnan(labels).all(axis=0)
    if part and empty.all():
        raise ValueError("Input y contains NaN only: no task has a label; leave these rows out")
    if empty.any() and not part:
        raise ValueError(no_label(tasks[int(empty.argmax())].name))


def classes_of(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Return the classes of a column, sorted; ValueError for one that holds no classes."""
    found = column[~missing(column)]
    if not len(found):
        raise ValueError(no_label(name))
    if found.dtype == object and one_type(found) in NUMBERS:
        found = np.array(found.tolist())
    if found.dtype.kind == "f" and np.isinf(found).any():
        raise ValueError(
            f"Input y contains infinity or a value too large for dtype({str(found.dtype)!r}) "
            f"(task {name!r}); set it to NaN to mean a missing label"
        )
    kind = ""
    if found.dtype == object and one_type(found) is None:
        kind = "mixed types"
    elif found.dtype.kind == "f" and ((np.abs(found) > EXACT) | (found != found.round())).any():
        kind = "continuous"
    kind = kind or type_of_target(found)
    if kind not in ("binary", "multiclass"):
        raise ValueError(
            f"Unknown label type: {kind} (task {name!r}). Classes are integers, booleans or "
            "strings; for a target of any number use 'regression'"
        )
    classes: NDArray[Any] = np.unique(found)
    return classes


EXACT = 2.0**53
"""Floats up to here may be whole numbers, beyond they cannot be told apart."""


def one_type(values: NDArray[Any]) -> type | None:
    """Return the type that all objects of an array have, None for several."""
    kinds = {type(v) for v in values}
    return kinds.pop() if len(kinds) == 1 else None


def indices(name: str, column: NDArray[Any], classes: NDArray[Any], unseen: str) -> Labels:
    """Return the class index of each label, NaN where missing."""
    there = ~missing(column)
    labels = column[there]
    found = np.full(len(column), np.nan)
    places = pd.Index(comparable(classes)).get_indexer(pd.Index(comparable(labels)))
    if unseen == "raise" and (places < 0).any():
        value = labels[int((places < 0).argmax())]
        raise ValueError(
            f"y holds the class {plain_word(value)} of task {name!r}, which the data of the fit "
            f"had not; its classes: {listed(classes)}. Name all in partial_fit(..., classes=...)"
        )
    found[there] = places
    return found


def comparable(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels with booleans as the integers that they equal, as objects or not."""
    if labels.dtype == object and one_type(labels) in NUMBERS:
        labels = np.array(labels.tolist())
    return labels.astype(int) if labels.dtype == bool else labels


def plain_word(value: Any) -> str:
    """Return a label as Python writes it, without the type of numpy."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def listed(classes: NDArray[Any]) -> str:
    """Return the first classes, for a message."""
    words = [plain_word(c) for c in classes[:10]]
    return ", ".join(words) + (f", ... ({len(classes)})" if len(classes) > 10 else "")


def resolve_kinds(tasks: Any, targets: Targets, preset: str | None) -> list[str]:
    """Return the kind of each task, in ``WORDS``.

    Parameters
    ----------
    tasks : None, str, or mapping of task name to str
        The user's word; None leaves it to the preset, or to the columns where there is none:
        floats are a regression, text and booleans a classification.
    preset : "regression", "classification" or None
        What the estimator's class makes of every task.
    """
    if isinstance(tasks, Mapping):
        for name in tasks:
            if name not in targets.names:
                raise ValueError(
                    f"tasks names {name!r}{closest(str(name), targets.names)}, which is no column "
                    f"of y; its columns: {', '.join(targets.names)}"
                )
        words = [tasks.get(name) for name in targets.names]
    elif tasks is None or isinstance(tasks, str):
        words = [tasks] * len(targets)
    else:
        raise ValueError(
            f"tasks={shown(tasks)} is not allowed; use one of {', '.join(WORDS)} for all, or a "
            "dict of column to kind, e.g. {'price': 'regression', 'kind': 'multiclass'}"
        )
    kinds = []
    for name, word, column in zip(targets.names, words, targets.columns, strict=True):
        word = word or preset or guessed(name, column)
        if word not in WORDS:
            raise ValueError(
                f"tasks: {word!r} is no kind of task{closest(str(word), WORDS)} (task {name!r}); "
                f"allowed: {', '.join(WORDS)}"
            )
        if preset is not None and (word == "regression") != (preset == "regression"):
            raise ValueError(
                f"tasks: {word!r} of task {name!r} does not fit this estimator; use MultiTaskNet"
                f"(tasks={{{name!r}: {word!r}, ...}}) for tasks of several kinds"
            )
        kinds.append(word)
    return kinds


def guessed(name: str, column: NDArray[Any]) -> str:
    """Return the kind of a task by its labels; ValueError where they may be either."""
    if column.dtype.kind == "f":
        return "regression"
    if column.dtype.kind in "iu":
        raise ValueError(
            f"task {name!r} holds integers, which may be classes or numbers; say which, e.g. "
            f"tasks={{{name!r}: 'regression'}} or {{{name!r}: 'classification'}}"
        )
    return "classification"


def make_tasks(targets: Targets, kinds: Sequence[str], classes: Any = None) -> list[Task]:
    """Return the tasks' records, their columns side by side; criteria are not chosen yet.

    Parameters
    ----------
    classes : None, array of classes for y of one dimension, or list of K arrays
        All classes there are; None takes those that are in y.
    """
    given = [None] * len(targets) if classes is None else list(classes)
    if classes is not None and targets.one_dimensional:
        given = [classes]
    if len(given) != len(targets):
        raise ValueError(
            f"classes has {len(given)} entries for {len(targets)} tasks; give a list with an "
            "array of classes a task (None for a regression)"
        )
    tasks: list[Task] = []
    first = 0
    for name, kind, column, own in zip(targets.names, kinds, targets.columns, given, strict=True):
        found = None
        if kind != "regression":
            found = classes_of(name, column) if own is None else np.unique(np.asarray(own))
            if kind == "binary" and len(found) > 2:
                raise ValueError(
                    f"task {name!r} is binary and has {len(found)} classes: {listed(found)}; use "
                    "'multiclass'"
                )
            if len(found) == 1:
                warnings.warn(
                    f"task {name!r} has one class only, {plain_word(found[0])}: it teaches "
                    "nothing and is always predicted",
                    stacklevel=4,
                )
            two = len(found) == 2 and kind != "multiclass"
            kind = "binary" if two else "multiclass"
        width = len(found) if found is not None and kind == "multiclass" else 1
        tasks.append(Task(name, kind, unset, slice(first, first + width), found))
        first += width
    return tasks


def check_classes(classes: Any, tasks: Sequence[Task], one_dimensional: bool) -> None:
    """Raise ValueError unless ``classes`` are those that the tasks have, as in the first call."""
    given = [classes] if one_dimensional else list(classes)
    same = len(given) == len(tasks) and all(
        (own is None) == (task.classes is None)
        and (task.classes is None or np.array_equal(np.unique(np.asarray(own)), task.classes))
        for own, task in zip(given, tasks, strict=True)
    )
    if not same:
        raise ValueError(
            f"classes={shown(classes)} is not the same as on last call to partial_fit; leave it out"
        )


def unset(prediction: Any, label: Any) -> Any:
    """Stand for a criterion that has not been chosen yet."""
    raise NotImplementedError("initialize() chooses the criteria")
