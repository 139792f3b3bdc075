"""From the outputs of a net to predictions: numbers, classes, probabilities, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from skorch.dataset import unpack_data
from skorch.utils import is_dataset
from torch import Tensor
from torch.nn import functional

from mtlsk.estimators.pickles import Pickles
from mtlsk.estimators.scores import score_per_task
from mtlsk.estimators.targets import Targets, side_by_side
from mtlsk.estimators.validation import check_features
from mtlsk.estimators.weights import check_sample_weight
from mtlsk.modules import HardSharing, Task

BLOCK = 32
"""Rows that a kernel of matrix products takes at once, or a multiple of them."""


def has_classes(net: Any) -> bool:
    """Say whether a net predicts classes; one that has seen no data yet may."""
    tasks = getattr(net, "tasks_", None)
    if tasks is None or not net.initialized_:
        given = net.tasks.values() if isinstance(net.tasks, Mapping) else [net.tasks]
        return bool(net._preset != "regression") and any(word != "regression" for word in given)
    if any(task.classes is not None for task in tasks):
        return True
    raise AttributeError(f"{type(net).__name__} has no probabilities: all tasks are regressions")


def has_logits(net: Any) -> bool:
    """Say whether there is one task, of classes: scikit-learn knows no list of decisions."""
    if getattr(net, "one_dimensional_", True):
        return has_classes(net)
    raise AttributeError(
        f"{type(net).__name__} has no decision_function for y of several columns; use predict_proba"
    )


class Predictions(Pickles):
    """What a fitted net says about rows."""

    _preset: str | None = None
    """The kind of every task where the class of the estimator says it."""

    one_dimensional_: bool
    from_frame_: bool

    def predict(self, X: Any) -> Any:
        """Return a number or a class for each row and task.

        Returns
        -------
        array of shape (n, K), or (n,) where y was one-dimensional
            Float64 for regressions, the labels of ``classes_`` for classes. MultiTaskNet itself
            returns a DataFrame where y was one: its columns may be of several types.
        """
        outputs = self._outputs(X)
        framed = self.from_frame_ and self._preset is None and not self.one_dimensional_
        # callbacks compare with labels as they are inside the net
        if is_dataset(X) or (all_numbers(self.tasks_) and not framed):
            return self._squeezed(encoded(outputs, self.tasks_))
        columns = [decoded(outputs, task) for task in self.tasks_]
        if self.one_dimensional_:
            return columns[0]
        if framed:
            index = X.index if isinstance(X, pd.DataFrame) else None
            named = zip(self.tasks_, columns, strict=True)
            return pd.DataFrame({task.name: column for task, column in named}, index=index)
        return side_by_side(columns)

    @available_if(has_classes)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class.

        Returns
        -------
        array of shape (n, C), or list of K such arrays where y has columns
            In the order of ``classes_``; None for a regression.
        """
        outputs = self._outputs(X)
        found = [probabilities(outputs, task) for task in self.tasks_]
        return found[0] if self.one_dimensional_ else found

    @available_if(has_logits)  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the logits, for y of one dimension: of the second of two classes, or of each.

        The logit of the second of two classes is ln(p / (1 - p)).

        Returns
        -------
        array of shape (n,) or (n, C)
        """
        outputs: NDArray[np.float64] = self._outputs(X).double().numpy()
        if self.tasks_[0].kind == "binary":
            return outputs[:, 0]
        return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the mean over the tasks of R^2 or accuracy, each over its labelled rows.

        A class that the fit did not see is a wrong prediction, as in scikit-learn.

        Parameters
        ----------
        X : array or DataFrame of shape (n, d)
        y : array, Series or DataFrame of shape (n,) or (n, K)
        sample_weight : array of shape (n,) or (n, K), or None
        """
        scores = self.task_scores(X, y, sample_weight)
        if np.isnan(scores).all():
            raise ValueError("y has no task with enough labels to score (two for R2, one else)")
        return float(np.nanmean(scores))

    def task_scores(self, X: Any, y: Any, sample_weight: Any = None) -> NDArray[np.float64]:
        """Return R^2 of each regression and accuracy of each classification, shape (K,).

        Over its labelled rows; NaN for a task without enough labels. See :meth:`score`.
        """
        outputs = self._outputs(X)
        targets = Targets(y, type(self).__name__)
        targets.check_rows(outputs)
        labels = targets.of(self.tasks_, "float64", unseen="mark")
        weights = None
        if sample_weight is not None:
            weights = check_sample_weight(sample_weight, (labels.shape[0], labels.shape[1]))
        return score_per_task(labels, encoded(outputs, self.tasks_), self.tasks_, weights)

    def evaluation_step(self, batch: Any, training: bool = False) -> Any:
        """Return the outputs for a batch; our own module sees whole blocks of rows.

        Kernels of matrix products sum the rows left over in another order, so that the last digits
        of a row's prediction would depend on how many rows it comes with.
        """
        X, _ = unpack_data(batch)
        n = len(X)
        ours = type(self.module_) is HardSharing and isinstance(X, Tensor)
        if not ours or n % BLOCK == 0:
            return super().evaluation_step(batch, training=training)
        whole = functional.pad(X, (0, 0, 0, -n % BLOCK))
        return super().evaluation_step((whole, None), training=training)[:n]

    def _outputs(self, X: Any) -> Tensor:
        """Return the net's outputs (n, W), on the CPU, in evaluation mode."""
        check_is_fitted(self)
        # callbacks ask about the datasets of the fit itself
        features = X if is_dataset(X) else check_features(self, X, reset=False)
        outputs = self.forward(features)
        if isinstance(outputs, tuple):
            outputs = outputs[0]
        found: Tensor = outputs.detach().cpu()
        return found

    def _squeezed(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[:, 0] if self.one_dimensional_ else values


def all_numbers(tasks: Sequence[Task]) -> bool:
    """Say whether all tasks are regressions, each of one column."""
    return all(task.classes is None for task in tasks)


def probabilities(outputs: Tensor, task: Task) -> NDArray[np.float64] | None:
    """Return the class probabilities (n, C) of a task, None for a regression."""
    if task.classes is None:
        return None
    logits = outputs[:, task.slice].double()
    if task.kind == "binary":
        logits = torch.cat([-logits / 2, logits / 2], dim=1)  # softmax of both is the sigmoid
    found: NDArray[np.float64] = logits.softmax(1).numpy()
    return found


def places(outputs: Tensor, task: Task) -> NDArray[np.int64]:
    """Return the index of the likeliest class, (n,)."""
    logits = outputs[:, task.slice]
    found = logits[:, 0] > 0 if task.kind == "binary" else logits.argmax(1)
    index: NDArray[np.int64] = found.long().numpy()
    return index


def decoded(outputs: Tensor, task: Task) -> NDArray[Any]:
    """Return a task's predictions (n,), in the labels of y."""
    if task.classes is None:
        values: NDArray[Any] = outputs[:, task.slice.start].double().numpy()
        return values
    chosen: NDArray[Any] = task.classes[places(outputs, task)]
    return chosen


def encoded(outputs: Tensor, tasks: Sequence[Task]) -> NDArray[np.float64]:
    """Return predictions (n, K) as numbers: class indices for classes."""
    if all_numbers(tasks):
        values: NDArray[np.float64] = outputs.double().numpy()
        return values
    columns = [
        outputs[:, task.slice.start].double().numpy()
        if task.classes is None
        else places(outputs, task).astype(np.float64)
        for task in tasks
    ]
    return np.stack(columns, axis=1)
