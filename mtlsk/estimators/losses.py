"""The losses of K tasks on a batch: criteria, missing labels, weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtlsk.estimators.device import OnDevice
from mtlsk.linear_graph import Columns
from mtlsk.modules import OF_MATRICES, Task


class TaskLosses(OnDevice):
    """The mean loss of each task over its labelled rows, each row with its weight.

    L_k = (1 / n_k) sum_i w_ik l_ik over the n_k labelled rows of the batch. Weights have the mean
    1 over the labelled rows of the whole training set, so that a batch of heavy rows counts for
    more than one of light rows.
    """

    tasks_: list[Task]
    columns_: Columns
    _labels: str  # of the rows in training: "all", "one" a row, or "some"
    _batch_rows: Tensor | None

    def element_losses(self, y_pred: Tensor, y: Tensor, X: Any = None) -> tuple[Tensor, Tensor]:
        """Return the loss of each row and task (B, K) and which labels are there, (B, K) bool.

        Override it for a loss that mixes outputs or looks at X. Labels of classes are indices.
        """
        mask = ~torch.isnan(y)
        return self._criterion_losses(y_pred, torch.where(mask, y, 0.0)), mask

    def _criterion_losses(self, y_pred: Tensor, y: Tensor) -> Tensor:
        first = self.tasks_[0].criterion
        if y_pred.shape == y.shape and all(task.criterion is first for task in self.tasks_):
            # every task is one column under one criterion: one call for all
            if first in OF_MATRICES:
                return first(y_pred, y)
            if self.tasks_[0].kind != "multiclass":
                fused = first(y_pred.reshape(-1, 1), y.reshape(-1))
                return fused.reshape(y.shape) if fused.numel() == y.numel() else fused
        columns = []
        for k, task in enumerate(self.tasks_):
            label = y[:, k].long() if task.kind == "multiclass" else y[:, k]
            loss = task.criterion(y_pred[:, task.slice], label)
            if loss.shape != label.shape:
                raise ValueError(
                    f"the criterion of task {task.name!r} returned shape {tuple(loss.shape)} for "
                    f"{len(label)} rows; it must return one loss a row, without reduction"
                )
            columns.append(loss)
        return torch.stack(columns, dim=1)

    def task_losses(self, y_pred: Tensor, y: Any, X: Any = None) -> tuple[Tensor, Tensor]:
        """Return the mean loss of each task over its labelled rows, and their number, both (K,).

        ``y`` holds the labels (B, K), or a pair of labels and weights.
        """
        y_pred = self._checked_outputs(y_pred)
        labels, weights = self._labels_and_weights(y)
        losses, mask = self.element_losses(y_pred, labels, X)
        check_shape(losses, labels)
        rows = mask.sum(0)
        if weights is not None:
            losses = losses * weights
        return torch.where(mask, losses, 0.0).sum(0) / rows.clamp_min(1), rows

    def _losses_and_rows(self, y_pred: Tensor, y: Any, X: Any) -> tuple[Tensor, Tensor | None]:
        """Return the task losses (K,) and the labelled rows (K,) on the CPU, None if all are."""
        if self._labels != "all" or not self._separable():
            losses, rows = self.task_losses(y_pred, y, X)
            return losses, rows.cpu() if self._batch_rows is None else self._batch_rows
        labels, weights = self._labels_and_weights(y)
        losses = self._criterion_losses(self._checked_outputs(y_pred), labels)
        check_shape(losses, labels)
        return (losses if weights is None else losses * weights).mean(0), None

    def _labels_and_weights(self, y: Any) -> tuple[Tensor, Tensor | None]:
        """Return labels (B, K) and their weights (B, K), None for equal ones, on the device."""
        if isinstance(y, tuple | list):
            labels, weights = y
            return self._on_device(labels), self._on_device(weights)
        return self._on_device(y), None

    def _separable(self) -> bool:
        """Say whether the loss of each task depends on its own outputs only."""
        ours = (TaskLosses.element_losses, TaskLosses.task_losses)
        return (type(self).element_losses, type(self).task_losses) == ours

    def _checked_outputs(self, y_pred: Any) -> Tensor:
        if isinstance(y_pred, tuple):  # as in skorch: the first is the prediction
            y_pred = y_pred[0]
        width = self.tasks_[-1].slice.stop
        if y_pred.ndim != 2 or y_pred.shape[1] != width:
            raise ValueError(
                f"the module returned shape {tuple(y_pred.shape)} for {len(y_pred)} rows; it must "
                f"return ({len(y_pred)}, {width}): {len(self.tasks_)} tasks"
            )
        outputs: Tensor = y_pred
        # sums of rows and weights of tasks need more digits than bfloat16 has
        return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs

    def get_loss(
        self, y_pred: Tensor, y_true: Any, X: Any = None, training: bool = False
    ) -> Tensor:
        """Return the mean of the tasks' losses, as callbacks expect one number."""
        losses, rows = self.task_losses(y_pred, y_true, X)
        return losses[rows > 0].mean()


def check_shape(losses: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless there is one loss a label."""
    if losses.shape != labels.shape:
        raise ValueError(
            f"the losses have shape {tuple(losses.shape)} for labels of shape "
            f"{tuple(labels.shape)}; a criterion must return one loss a row, without reduction"
        )
