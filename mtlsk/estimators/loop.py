"""The training loop under MultiTaskNet: one batch after another, and little else."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EpochTimer
from skorch.dataset import get_len, unpack_data
from skorch.utils import to_tensor
from torch import Tensor

from mtlsk.descent import Descent
from mtlsk.engines import Forward
from mtlsk.estimators.batches import SlicedBatches
from mtlsk.estimators.printlog import EpochCallback, EpochLoss, EpochMeter, TaskPrintLog
from mtlsk.linear_graph import Columns
from mtlsk.modules import CRITERIA, Task

QUIET = (EpochTimer, EpochLoss, TaskPrintLog, EpochCallback)
"""Callbacks that do not look at single batches: those that every net has, and some of ours."""


class StopTraining(Exception):  # noqa: N818 (a signal, not an error)
    """A callback ends the training."""


class TrainingLoop(NeuralNet):  # type: ignore[misc]
    """skorch's loop with the losses of K tasks, a descent step, and one meter an epoch.

    What a batch leaves in ``history_`` (skorch's rows of batches) is kept only where a callback
    looks at batches: a hundred thousand dicts slow the fit and are rarely read.
    """

    history_: Any
    aggregator_: Any
    task_names_: list[str]
    tasks_: list[Task]
    columns_: Columns
    seed_: int
    _descent: Descent
    _meter: EpochMeter
    _again: Again | None  # evaluates the last batch again, for those who look after the step
    _labels: str  # of the rows in training: "all", "one" a row, or "some"

    # ---- epochs

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Go through the batches once."""
        if iterator is None:
            return
        self._batch_rows: Tensor | None = None
        watched = self._watched("on_batch_begin", "on_batch_end")
        self._grad_watched = self._watched("on_grad_computed")
        self._looked_at = (
            watched
            or self._watched("train_step", "train_step_single")
            or not _takes_no_closure(self.optimizer_)
        )
        n_batches = 0
        for batch in self._with_label_counts(iterator, training):
            if watched:
                self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            n_batches += 1
            if watched:
                first = batch[0] if isinstance(batch, tuple | list) else batch
                self.history.record_batch(f"{prefix}_loss", float(step["loss"]))
                self.history.record_batch(f"{prefix}_batch_size", get_len(first))
                self.notify("on_batch_end", batch=batch, training=training, **step)
            del step, batch  # or the next batch could not use their memory
        self.history.record(f"{prefix}_batch_count", n_batches)

    def _with_label_counts(self, iterator: Any, training: bool) -> Iterable[Any]:
        """Yield the batches; where labels are missing, know their numbers without a transfer."""
        if not (training and isinstance(iterator, SlicedBatches) and self._labels != "all"):
            yield from iterator
            return
        for batch in iterator:
            self._batch_rows = iterator.label_counts
            yield batch
        self._batch_rows = None

    def _watched(self, *methods: str) -> bool:
        """Say whether single batches matter to a callback of the user's or to a subclass."""
        own = (getattr(NeuralNet, m) for m in methods), (getattr(TrainingLoop, m) for m in methods)
        return any(not isinstance(cb, QUIET) for _, cb in self.callbacks_) or any(
            getattr(type(self), m) not in pair for m, *pair in zip(methods, *own, strict=True)
        )

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call the callbacks; a KeyboardInterrupt they raise on_epoch_end ends training quietly.

        That is how skorch's EarlyStopping says stop. A real Ctrl-C, which comes in the middle of
        some other line, goes on to the caller.
        """
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as stop:
            line = traceback.extract_tb(stop.__traceback__)[-1].line or ""
            if method_name == "on_epoch_end" and line.startswith("raise KeyboardInterrupt"):
                raise StopTraining from stop
            raise

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Open a row of the history; shuffling depends on (random_state, epoch) alone."""
        super().on_epoch_begin(net, **kwargs)
        self._meter = EpochMeter(len(self.task_names_))
        seeds = np.random.SeedSequence([self.seed_, len(self.history_)])
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Record the epoch's means: losses and weights a task, smallest cosine, changes."""
        super().on_epoch_end(net, **kwargs)
        self._descent.end_epoch()
        row = self._meter.summary() | statistics_of(self.optimizer_)
        self._epoch_losses = {
            name: row.pop(name) for name in ("train_loss", "valid_loss") if name in row
        }
        for name, value in row.items():
            self.history_.record(name, value)
        self._descent.check_losses(row.get("train_losses", []))

    # ---- one step

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Take one optimizer step; show the losses after it to an aggregator that asks for them."""
        if _takes_no_closure(self.optimizer_):
            step = self.train_step_single(batch, **fit_params)
            if self._grad_watched:
                named = list(self.get_all_learnable_params())
                self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
            self.optimizer_.step()
        else:
            step = super().train_step(batch, **fit_params)
        if self.aggregator_.needs_losses_after and self._again is not None:
            with torch.no_grad():  # the same dropout masks, running statistics left alone
                losses, _ = self._again(None)
            self._again = None
            self._descent.observe(losses)
        return step

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute the task losses of a batch and fill the gradients by the aggregator."""
        if not self.module_.training:
            self._set_training(True)
        Xi, yi = unpack_data(batch)
        looks_again = self._descent.looks_again or self.aggregator_.needs_losses_after
        state = random_state_of(self._device()) if looks_again else None
        y_pred = self.infer(Xi, **fit_params)
        labels = self._on_device(yi)
        losses, rows = self._losses_and_rows(y_pred, labels, Xi)
        present = None if rows is None else (rows > 0).tolist()
        forward = None
        again = None if state is None else Again(self, Xi, labels, state, fit_params)
        self._again = again if self.aggregator_.needs_losses_after else None
        if not isinstance(y_pred, tuple) and self._separable():
            place = (~labels.isnan()).byte().argmax(1) if self._labels == "one" else None
            forward = Forward(y_pred, self.columns_, place, again)
        record = self._descent.backward(losses, present, forward)
        self._meter.add_losses("train", record.losses, rows, labels.shape[0])
        self._meter.add_step(record, self._descent.changes)
        return {"loss": _mean_loss(record) if self._looked_at else None, "y_pred": y_pred}

    def _separable(self) -> bool:
        """Say whether the loss of each task depends on its own outputs only."""
        ours = (TrainingLoop.element_losses, TrainingLoop.task_losses)
        return (type(self).element_losses, type(self).task_losses) == ours

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute the task losses of a validation batch."""
        self._set_training(False)
        Xi, yi = unpack_data(batch)
        with torch.no_grad():
            y_pred = self.infer(Xi, **fit_params)
            losses, rows = self.task_losses(y_pred, yi, Xi)
        self._meter.add_losses("valid", losses.double(), rows, get_len(Xi))
        return {"loss": losses[rows > 0].mean(), "y_pred": y_pred}

    # ---- losses

    def element_losses(self, y_pred: Tensor, y: Tensor, X: Any = None) -> tuple[Tensor, Tensor]:
        """Return the loss of each row and task (B, K) and which labels are there, (B, K) bool.

        Override it for a loss that mixes outputs or looks at X.
        """
        mask = ~torch.isnan(y)
        return self._criterion_losses(y_pred, torch.where(mask, y, 0.0)), mask

    def _criterion_losses(self, y_pred: Tensor, y: Tensor) -> Tensor:
        first = self.tasks_[0].criterion
        if y_pred.shape == y.shape and all(task.criterion is first for task in self.tasks_):
            # every task is one column under one criterion: one call for all
            if first in CRITERIA.values():
                return first(y_pred, y)
            fused = first(y_pred.reshape(-1, 1), y.reshape(-1))
            return fused.reshape(y.shape) if fused.numel() == y.numel() else fused
        losses = [t.criterion(y_pred[:, t.slice], y[:, k]) for k, t in enumerate(self.tasks_)]
        return torch.stack(losses, dim=1)

    def task_losses(self, y_pred: Tensor, y: Any, X: Any = None) -> tuple[Tensor, Tensor]:
        """Return the mean loss of each task over its labelled rows, and their number, both (K,)."""
        y_pred = self._checked_outputs(y_pred)
        labels = self._on_device(y)
        losses, mask = self.element_losses(y_pred, labels, X)
        check_shape(losses, labels)
        rows = mask.sum(0)
        return torch.where(mask, losses, 0.0).sum(0) / rows.clamp_min(1), rows

    def _losses_and_rows(
        self, y_pred: Tensor, labels: Tensor, X: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the task losses (K,) and the labelled rows (K,) on the CPU, None if all are."""
        if self._labels != "all" or not self._separable():
            losses, rows = self.task_losses(y_pred, labels, X)
            return losses, rows.cpu() if self._batch_rows is None else self._batch_rows
        losses = self._criterion_losses(self._checked_outputs(y_pred), labels)
        check_shape(losses, labels)
        return losses.mean(0), None

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
        return outputs

    def get_loss(
        self, y_pred: Tensor, y_true: Any, X: Any = None, training: bool = False
    ) -> Tensor:
        """Return the mean of the tasks' losses, as callbacks expect one number."""
        losses, rows = self.task_losses(y_pred, y_true, X)
        return losses[rows > 0].mean()

    def _on_device(self, values: Any) -> Tensor:
        device = self._device()
        if isinstance(values, Tensor) and values.device.type == device.type:
            return values
        tensor: Tensor = to_tensor(values, device=device)
        return tensor

    def _device(self) -> torch.device:
        raise NotImplementedError


class Again:
    """Evaluates a batch again at the parameters' present values, in the same random state.

    Buffers (running statistics) and the random generators are left as the first pass left them.
    """

    def __init__(
        self, net: TrainingLoop, X: Any, y: Tensor, state: list[Tensor], fit_params: dict[str, Any]
    ) -> None:
        self.net, self.X, self.y, self.state, self.fit_params = net, X, y, state, fit_params

    def __call__(self, rows: slice | None) -> tuple[Tensor, Tensor]:
        """Return (task losses, outputs) of some rows, or of all."""
        X, y = (self.X, self.y) if rows is None else (self.X[rows], self.y[rows])
        device = self.y.device
        now = random_state_of(device)
        # copies: the first pass's graph may hold the buffers themselves
        holders = [m._buffers for m in self.net.module_.modules() if m._buffers]
        kept = [dict(buffers) for buffers in holders]
        set_random_state(self.state, device)
        try:
            for buffers in holders:
                for name, b in buffers.items():
                    buffers[name] = None if b is None else b.clone()
            outputs = self.net.infer(X, **self.fit_params)
            losses, _ = self.net.task_losses(outputs, y, X)
        finally:
            set_random_state(now, device)
            for buffers, before in zip(holders, kept, strict=True):
                buffers.update(before)
        return losses, outputs


def random_state_of(device: torch.device) -> list[Tensor]:
    """Return the states of torch's generators, of the CPU and of a CUDA device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    """Set what :func:`random_state_of` returned."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def check_shape(losses: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless there is one loss a label."""
    if losses.shape != labels.shape:
        raise ValueError(
            f"the losses have shape {tuple(losses.shape)} for labels of shape "
            f"{tuple(labels.shape)}; a criterion must return one loss a row, without reduction"
        )


def statistics_of(optimizer: Any) -> dict[str, float]:
    """Return what the optimizer has to say about an epoch, by its own ``statistics()``."""
    own = getattr(optimizer, "statistics", None)
    return own() if callable(own) else {}


def _mean_loss(record: Any) -> Tensor:
    losses: Tensor = record.losses
    return losses.nanmean() if len(record.present) < len(losses) else losses.mean()


def _takes_no_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Say whether one call of step() is one evaluation: true of torch's own but LBFGS, and ours."""
    home = type(optimizer).__module__.partition(".")[0]
    return home in ("torch", "mtlsk") and not isinstance(optimizer, torch.optim.LBFGS)
