"""What y is: columns of labels of any type, and those as one matrix of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target

from mtlsk.modules import Task

Labels = NDArray[Any]


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
        array = as_array(y)
        if array.dtype.kind in "OSUM" and array.ndim in (1, 2):
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
        names = [task.name for task in tasks]
        if self.from_frame and names != self.names and set(names) == set(self.names):
            raise ValueError(
                f"the columns of y are {', '.join(self.names)}, in another order than in the fit; "
                f"give y[[{', '.join(map(repr, names))}]]"
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
    if isinstance(y, np.ndarray) or not hasattr(y, "__dlpack__"):
        return y
    return np.from_dlpack(y)


def as_array(y: Any) -> NDArray[Any]:
    """Return y as an array; of objects for a list that holds text beside other things.

    numpy would make text of all of it: "nan" of a missing label, "1.5" of a number.
    """
    array: NDArray[Any] = np.asarray(host(y))
    if array.dtype.kind == "T":  # numpy's own strings, which scikit-learn does not know
        array = array.astype(object)
    if array.dtype.kind in "US" and isinstance(y, list | tuple):
        objects = np.array(y, dtype=object)
        if not all(isinstance(value, str | bytes) for value in objects.ravel()):
            return objects
    return array


def target_names(y: Any) -> list[str] | None:
    """Return the names that y brings: the columns of a DataFrame, the name of a Series."""
    if isinstance(y, pd.DataFrame):
        return [str(c) for c in y.columns]
    if isinstance(y, pd.Series) and y.name is not None:
        return [str(y.name)]
    return None


def by_name(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping of columns with their names as text, as tasks are named."""
    return {str(name): value for name, value in given.items()}


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
    return np.array(column.tolist()) if kinds and all(map(is_number, kinds)) else column


def is_number(kind: type) -> bool:
    """Say whether values of a type are numbers or booleans."""
    ours = kind in (int, float, bool)  # a subclass, such as an enumeration, means more
    return ours or issubclass(kind, np.integer | np.floating | np.bool_)


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
    found = plain(column[~missing(column)])
    if not len(found):
        raise ValueError(no_label(name))
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
    kinds = {str if isinstance(v, str) else type(v) for v in values}
    return kinds.pop() if len(kinds) == 1 else None


def indices(name: str, column: NDArray[Any], classes: NDArray[Any], unseen: str) -> Labels:
    """Return the class index of each label, NaN where missing."""
    there = ~missing(column)
    labels = plain(column[there])
    if sorted(labels.dtype.kind + classes.dtype.kind) in (["b", "f"], ["b", "i"], ["b", "u"]):
        labels, classes = labels.astype(float), classes.astype(float)  # True is 1, as in Python
    found = np.full(len(column), np.nan)
    places = pd.Index(classes).get_indexer(pd.Index(labels))
    if unseen == "raise" and (places < 0).any():
        value = labels[int((places < 0).argmax())]
        raise ValueError(
            f"y holds the class {plain_word(value)} of task {name!r}, which the data of the fit "
            f"had not; its classes: {listed(classes)}. Name all in partial_fit(..., classes=...)"
        )
    found[there] = places
    return found


def plain_word(value: Any) -> str:
    """Return a label as Python writes it, without the type of numpy."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def listed(classes: NDArray[Any]) -> str:
    """Return the first classes, for a message."""
    words = [plain_word(c) for c in classes[:10]]
    return ", ".join(words) + (f", ... ({len(classes)})" if len(classes) > 10 else "")


def side_by_side(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return columns as one array; of objects where their types have nothing in common."""
    kinds = {"number" if c.dtype.kind in "biuf" else c.dtype.kind for c in columns}
    if len(kinds) > 1:
        columns = [c.astype(object) for c in columns]
    return np.stack(columns, axis=1)
