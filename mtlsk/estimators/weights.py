"""Weights of rows and classes as one matrix: a weight for each row and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlsk.component import closest, shown
from mtlsk.estimators.targets import by_name, host, listed
from mtlsk.modules import Task

Weights = NDArray[np.float64]


def check_sample_weight(sample_weight: Any, shape: tuple[int, int]) -> Weights:
    """Return ``sample_weight`` (n,) or (n, K) as a matrix (n, K), the largest of a column 1.

    Raises
    ------
    ValueError
        For another shape, and weights that are negative or not finite.
    """
    given = np.asarray(host(sample_weight))
    n, k = shape
    if given.shape == ():
        given = np.full(n, given)
    if given.shape not in ((n,), (n, k)):
        raise ValueError(
            f"sample_weight has shape {given.shape}, expected ({n},), a weight a row, or ({n}, "
            f"{k}), one a row and task"
        )
    try:
        weights = given.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"sample_weight of dtype {given.dtype} holds no numbers") from None
    if not np.isfinite(weights).all():
        raise ValueError("sample_weight contains NaN or infinity; weights are finite numbers >= 0")
    if (weights < 0).any():
        raise ValueError(
            f"Negative values in sample_weight: {weights.min():g}; weights are numbers >= 0"
        )
    return largest_one(np.broadcast_to(weights.reshape(n, -1), shape))


def largest_one(weights: Weights) -> Weights:
    """Return weights (n, K) divided by the largest of their column: sums stay finite."""
    top = weights.max(axis=0, initial=0.0)
    return weights / np.where(top > 0, top, 1.0)


def label_weights(
    labels: NDArray[Any],
    tasks: Sequence[Task],
    sample_weight: Any,
    class_weight: Any,
    *,
    part: bool = False,
) -> tuple[NDArray[Any], Weights | None]:
    """Return the labels without those of weight 0, and the others' weights (n, K).

    w_ik = s_ik c_k(y_ik), row times class weight, divided by the mean over the labels of task k
    that are left; None where all are equal.

    Raises
    ------
    ValueError
        For wrong weights, and where no label of a task is left; for ``part`` of a stream, where
        none is left at all.
    """
    if sample_weight is None and class_weight is None:
        return labels, None
    weights = np.ones(labels.shape)
    if sample_weight is not None:
        weights = check_sample_weight(sample_weight, (labels.shape[0], labels.shape[1]))
    if class_weight is not None:
        for k, (task, word) in enumerate(zip(tasks, per_task(class_weight, tasks), strict=True)):
            if word is not None:
                there = ~np.isnan(labels[:, k])
                places = labels[there, k].astype(int)
                weights[there, k] *= of_classes(task, word, places, weights[there, k])[places]
    there = ~np.isnan(labels) & (weights > 0)
    left = there.any(axis=0)
    if not (left.any() if part else left.all()):
        name = tasks[int(left.argmin())].name
        raise ValueError(
            f"sample_weight or class_weight is zero for every label of task {name!r}; give one of "
            "them a positive weight, or leave the task out"
        )
    labels = np.where(there, labels, np.nan)
    weights = largest_one(np.where(there, weights, 0.0))
    means = weights.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    weights /= np.where(left, means, 1.0)
    return labels, None if np.allclose(weights[there], 1.0, rtol=1e-12) else weights


def per_task(class_weight: Any, tasks: Sequence[Task]) -> list[Any]:
    """Return the class weights of each task: None, "balanced" or {class: weight}."""
    if all(task.classes is None for task in tasks):
        raise ValueError(
            f"class_weight={shown(class_weight)} is for classification, and all tasks are "
            "regressions; leave it out or use sample_weight"
        )
    if class_weight == "balanced":
        return [None if task.classes is None else "balanced" for task in tasks]
    names = [task.name for task in tasks]
    words: list[Any]
    if isinstance(class_weight, Mapping):
        if len(tasks) == 1 and not any(is_word(word) for word in class_weight.values()):
            words = [class_weight]
        else:
            class_weight = by_name(class_weight)
            for name in class_weight:
                if name not in names:
                    raise ValueError(
                        f"class_weight names {name!r}{closest(str(name), names)}, which is no "
                        f"task; the tasks: {', '.join(names)}"
                    )
            words = [class_weight.get(name) for name in names]
    elif isinstance(class_weight, list) and len(class_weight) == len(tasks):
        words = class_weight
    else:
        raise ValueError(
            f"class_weight={shown(class_weight)} is not allowed; use 'balanced', {{class: weight}} "
            "for one task, {task: 'balanced' or {class: weight}}, or a list with an entry a task"
        )
    for task, word in zip(tasks, words, strict=True):
        if word is not None and task.classes is None:
            raise ValueError(
                f"class_weight: task {task.name!r} is a regression, it has no classes; give None"
            )
        if word is not None and word != "balanced" and not isinstance(word, Mapping):
            raise ValueError(
                f"class_weight: {shown(word)} of task {task.name!r} is not allowed; use "
                "'balanced' or {class: weight}"
            )
    return words


def is_word(word: Any) -> bool:
    """Say whether this is what a task may have, and not the weight of a class."""
    return word is None or isinstance(word, str | Mapping)


def of_classes(task: Task, word: Any, places: NDArray[Any], weights: Weights) -> Weights:
    """Return the weight of each class of a task, 1 for those that a dict leaves out.

    "balanced" is 1 / n_c, in sums of the rows' weights; scikit-learn's factor n / C is lost in the
    division by the mean.
    """
    assert task.classes is not None
    own = np.ones(len(task.classes))
    if word == "balanced":
        totals = np.bincount(places, weights=weights, minlength=len(own))
        present = totals > 0
        own[present] = 1 / totals[present]
        return own
    known = {c.item() if isinstance(c, np.generic) else c: i for i, c in enumerate(task.classes)}
    whole = all(label in word for label in known)  # then a part of the rows may lack some class
    for label, weight in word.items():
        if label not in known and not whole:
            raise ValueError(
                f"class_weight: {label!r} is no class of task {task.name!r}; its classes: "
                f"{listed(task.classes)}"
            )
        if not isinstance(weight, int | float | np.number) or not 0 <= weight < np.inf:
            raise ValueError(
                f"class_weight: {shown(weight)} of class {label!r} is not allowed; weights are "
                "numbers >= 0"
            )
        if label in known:
            own[known[label]] = float(weight)
    return own
