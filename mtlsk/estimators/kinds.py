"""Which tasks y holds: the kind of each, and its classes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlsk.component import closest, shown
from mtlsk.estimators.targets import (
    Targets,
    as_array,
    by_name,
    classes_of,
    listed,
    missing,
    plain,
    plain_word,
)
from mtlsk.modules import KINDS, Task

WORDS = (*KINDS, "classification")
"""What ``tasks`` may say; "classification" is binary or multiclass by the number of classes."""


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
        tasks = by_name(tasks)
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
    kind = plain(column[~missing(column)]).dtype.kind
    if kind == "f":
        return "regression"
    if kind in "iu":
        raise ValueError(
            f"task {name!r} holds integers, which may be classes or numbers; say which, e.g. "
            f"tasks={{{name!r}: 'regression'}} or {{{name!r}: 'classification'}}"
        )
    if kind in "mM":
        raise ValueError(
            f"task {name!r} holds times; make numbers of them, or say "
            f"tasks={{{name!r}: 'classification'}}"
        )
    return "classification"


def make_tasks(targets: Targets, kinds: Sequence[str], classes: Any = None) -> list[Task]:
    """Return the tasks' records, their columns side by side; criteria are not chosen yet.

    Parameters
    ----------
    classes : None, array of classes for y of one dimension, or list of K arrays
        All classes there are; None takes those that are in y.
    """
    given = [None] * len(targets)
    if classes is not None:
        given = entries(classes, len(targets), targets.one_dimensional)
    tasks: list[Task] = []
    first = 0
    for name, kind, column, own in zip(targets.names, kinds, targets.columns, given, strict=True):
        found = None
        if kind == "regression" and own is not None:
            raise ValueError(f"classes: task {name!r} is a regression, it has none; give None")
        if kind != "regression":
            found = classes_of(name, column) if own is None else named_classes(name, own)
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


def entries(classes: Any, n_tasks: int, one_dimensional: bool) -> list[Any]:
    """Return the ``classes`` that the user gave, an entry a task."""
    if one_dimensional:
        return [classes]
    if not isinstance(classes, Sequence | np.ndarray) or len(classes) != n_tasks:
        raise ValueError(
            f"classes={shown(classes)} is not allowed for {n_tasks} tasks; give a list with an "
            "array of classes a task (None for a regression)"
        )
    return list(classes)


def named_classes(name: str, classes: Any) -> NDArray[Any]:
    """Return the classes of a task that the user named, sorted."""
    array = as_array(classes)
    if array.ndim != 1 or not len(array) or missing(array).any():
        raise ValueError(
            f"classes={shown(classes)} of task {name!r} is not allowed; give an array of all its "
            "classes, none of them missing"
        )
    return classes_of(name, array)


def check_classes(classes: Any, tasks: Sequence[Task], one_dimensional: bool) -> None:
    """Raise ValueError unless ``classes`` are those that the tasks have, as in the first call."""
    given = entries(classes, len(tasks), one_dimensional)
    same = all(
        own is task.classes
        if own is None or task.classes is None
        else np.array_equal(named_classes(task.name, own), task.classes)
        for own, task in zip(given, tasks, strict=True)
    )
    if not same:
        raise ValueError(
            f"classes={shown(classes)} is not the same as on last call to partial_fit; leave it out"
        )


def unset(prediction: Any, label: Any) -> Any:
    """Stand for a criterion that has not been chosen yet."""
    raise NotImplementedError("initialize() chooses the criteria")
