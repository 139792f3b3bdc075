"""X, y and weights as a net takes them, and what they say of its tasks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtlsk.estimators.kinds import check_classes, make_tasks, resolve_kinds
from mtlsk.estimators.parameters import check_dtype
from mtlsk.estimators.targets import Targets, check_labelled
from mtlsk.estimators.validation import check_features
from mtlsk.estimators.weights import label_weights


class Prepared(NamedTuple):
    """Data as the net takes it: features, labels (NaN: missing) and their weights, or None."""

    X: Any
    labels: NDArray[Any]
    weights: NDArray[Any] | None


def prepare(
    net: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    reset: bool,
    part: bool = False,
    classes: Any = None,
    weighted: bool = True,
) -> Prepared:
    """Return the data as the net takes it.

    Parameters
    ----------
    reset : bool
        Whether the net's tasks become those of y; else y must fit them.
    part : bool
        A part of a stream may have no label of some task, but must have one.
    classes : as for ``partial_fit``
    weighted : bool
        Whether the net's ``class_weight`` counts.

    Raises
    ------
    ValueError
        In one line, for data that are not allowed or do not fit.
    """
    if reset:
        check_dtype(net.dtype)
        net.dtype_ = net.dtype
    features = check_features(net, X, reset=reset)
    targets = Targets(y, type(net).__name__)
    targets.check_rows(features)
    if reset:
        kinds = resolve_kinds(net.tasks, targets, net._preset)
        net.tasks_ = make_tasks(targets, kinds, classes)
        net.task_names_ = targets.names
        net.one_dimensional_ = targets.one_dimensional
        net.from_frame_ = targets.from_frame
        net.__dict__.pop("classes_", None)
        if any(task.classes is not None for task in net.tasks_):
            found = [task.classes for task in net.tasks_]
            net.classes_ = found[0] if targets.one_dimensional else found
    elif classes is not None:
        check_classes(classes, net.tasks_, targets.one_dimensional)
    labels = targets.of(net.tasks_, net.dtype_)
    check_labelled(labels, net.tasks_, part=part)
    of_classes = net.class_weight if weighted else None
    labels, weights = label_weights(labels, net.tasks_, sample_weight, of_classes, part=part)
    return Prepared(features, labels, None if weights is None else weights.astype(net.dtype_))


def labels_of(y: NDArray[Any]) -> str:
    """Say which labels (n, K) are there: "all", "one" a row at most (of several), or "some"."""
    there = ~np.isnan(y)
    if there.all():
        return "all"
    return "one" if there.sum(axis=1).max() <= 1 else "some"
