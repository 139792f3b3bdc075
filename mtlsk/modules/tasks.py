"""Task, the record that says which outputs are which task's, and the criteria by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

ElementCriterion = Callable[[Tensor, Tensor], Tensor]
"""(prediction (B, width), label (B,)) -> loss of each row (B,)."""

KINDS = ("regression", "binary", "multiclass")


@dataclass(frozen=True, eq=False)
class Task:
    """One task of a net: its name, its kind, its classes, its criterion and its columns.

    Attributes
    ----------
    name : str
    kind : "regression", "binary" (one logit) or "multiclass" (one logit a class)
    criterion : callable
        (prediction (B, width), label (B,)) -> (B,). Labels are numbers, 0. or 1. for a binary
        task, and int64 class indices for a multiclass one.
    slice : slice
        The columns of the module's output that are this task's.
    classes : array of shape (C,), sorted, or None for a regression
        The label that each class index stands for.
    """

    name: str
    kind: str
    criterion: ElementCriterion
    slice: slice
    classes: NDArray[Any] | None = None


def one_column(prediction: Tensor, label: Tensor) -> Tensor:
    """Return the one column of a prediction (B, 1) for labels (B,); matrices as they are."""
    return prediction if prediction.ndim == label.ndim else prediction.squeeze(1)


def squared_error(prediction: Tensor, label: Tensor) -> Tensor:
    """Return (f - y)^2 for each row (each element, of matrices of one shape)."""
    return (one_column(prediction, label) - label) ** 2


def absolute_error(prediction: Tensor, label: Tensor) -> Tensor:
    """Return |f - y| for each row (each element, of matrices of one shape)."""
    return (one_column(prediction, label) - label).abs()


def huber(prediction: Tensor, label: Tensor) -> Tensor:
    """Return the Huber loss with delta = 1 for each row (element, of matrices of one shape)."""
    return functional.huber_loss(one_column(prediction, label), label, reduction="none")


def binary_log_loss(prediction: Tensor, label: Tensor) -> Tensor:
    """Return log(1 + exp(f)) - y f, the log-loss of logits f for y in {0, 1}, for each row.

    Of matrices of one shape for each element.
    """
    logits = one_column(prediction, label)
    return functional.binary_cross_entropy_with_logits(logits, label, reduction="none")


def log_loss(prediction: Tensor, label: Tensor) -> Tensor:
    """Return log sum_c exp(f_c) - f_y for each row, logits f (B, C) and class indices y (B,)."""
    return functional.cross_entropy(prediction, label, reduction="none")


CRITERIA: dict[str, dict[str, ElementCriterion]] = {
    "regression": {
        "squared_error": squared_error,
        "absolute_error": absolute_error,
        "huber": huber,
    },
    "binary": {"log_loss": binary_log_loss},
    "multiclass": {"log_loss": log_loss},
}
"""Criteria of each kind of task by name; the first of each is its default."""

OF_MATRICES = (squared_error, absolute_error, huber, binary_log_loss)
"""Those that also take a matrix of predictions (B, K) with one of labels (B, K)."""
