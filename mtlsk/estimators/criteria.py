"""Which criterion each task has, from the word, callable or dict that the user wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mtlsk.component import closest, shown
from mtlsk.estimators.targets import by_name
from mtlsk.modules import CRITERIA, ElementCriterion, Task


def with_criteria(tasks: Sequence[Task], criterion: Any) -> list[Task]:
    """Return the tasks with their criteria.

    Parameters
    ----------
    criterion : "auto", name, callable, or mapping of task name to one of these
        "auto" is squared_error for a regression and log_loss for classes. A name is for the tasks
        of the kinds that have it, the others keep their default.

    Raises
    ------
    ValueError
        For a name, a task or an object that is not allowed.
    """
    if isinstance(criterion, Mapping):
        names = [task.name for task in tasks]
        criterion = by_name(criterion)
        for name in criterion:
            if name not in names:
                raise ValueError(
                    f"criterion names {name!r}{closest(str(name), names)}, which is no task; "
                    f"the tasks: {', '.join(names)}"
                )
        return [
            replace(task, criterion=chosen(criterion.get(task.name, "auto"), task))
            for task in tasks
        ]
    known = isinstance(criterion, str) and any(criterion in CRITERIA[t.kind] for t in tasks)
    return [
        replace(task, criterion=chosen(criterion, task))
        if not known or criterion in CRITERIA[task.kind]
        else replace(task, criterion=chosen("auto", task))
        for task in tasks
    ]


def chosen(word: Any, task: Task) -> ElementCriterion:
    """Return the criterion that a word or callable means for a task."""
    of_kind = CRITERIA[task.kind]
    usage = (
        f"use one of auto, {', '.join(of_kind)}, or a function (prediction (B, width), label "
        "(B,)) -> loss of each row (B,)"
    )
    if isinstance(word, type):
        raise ValueError(f"criterion={word.__name__} is a class; {usage}")
    if isinstance(word, str):
        found = next(iter(of_kind.values())) if word == "auto" else of_kind.get(word)
        if found is not None:
            return found
        raise ValueError(
            f"criterion={word!r} is not allowed for task {task.name!r} ({task.kind}); {usage}"
        )
    if callable(word):
        function: ElementCriterion = word
        return function
    raise ValueError(f"criterion={shown(word)} is not allowed; {usage}")
