"""The training loop under MultiTaskNet: one batch after another, and little else."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EpochTimer
from skorch.dataset import Dataset, get_len, unpack_data
from torch import Tensor

from mtlsk.descent import Descent
from mtlsk.engines import Forward
from mtlsk.estimators.batches import SlicedBatches, batches
from mtlsk.estimators.device import seed_generators
from mtlsk.estimators.losses import TaskLosses
from mtlsk.estimators.printlog import EpochCallback, EpochLoss, EpochMeter, TaskPrintLog
from mtlsk.estimators.rows import LabelledRows
from mtlsk.estimators.sklearn_callbacks import Epochs

QUIET = (EpochTimer, EpochLoss, TaskPrintLog, EpochCallback)
"""Callbacks that do not look at single batches: those that every net has, and some of ours."""


class StopTraining(Exception):  # noqa: N818 (a signal, not an error)
    """A callback ends the training."""


class TrainingLoop(TaskLosses):
    """skorch's loop with the losses of K tasks, a descent step, and one meter an epoch.

    What a batch leaves in ``history_`` (skorch's rows of batches) is kept only where a callback
    looks at batches: a hundred thousand dicts slow the fit and are rarely read.
    """

    aggregator_: Any
    regularizer_: Any = None
    task_names_: list[str]
    one_dimensional_: bool
    seed_: int
    _descent: Descent
    _meter: EpochMeter
    _again: Again | None  # evaluates the last batch again, for those who look after the step
    _epochs: Epochs | None = None  # tells scikit-learn's callbacks, where there are some
    _repeats: bool = True  # whether engines may compare passes: not those of mixed precision

    # ---- epochs

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Go through the batches once."""
        if iterator is None:
            return
        self._batch_rows = None
        if training:
            self._descent.follow(self.module_, self.optimizer_)  # callbacks may change them
        watched = self._watched("on_batch_begin", "on_batch_end")
        self._grad_watched = self._watched("on_grad_computed")
        self._looked_at = (
            watched
            or self._watched("train_step", "train_step_single")
            or not _takes_no_closure(self.optimizer_)
        )
        n_batches = 0
        for batch in self._with_label_counts(iterator, training):
            shown = batch
            if isinstance(batch, tuple | list) and isinstance(batch[1], tuple | list):
                shown = (batch[0], batch[1][0])  # callbacks see the labels, not their weights
            if watched:
                self.notify("on_batch_begin", batch=shown, training=training)
            step = step_fn(batch, **fit_params)
            n_batches += 1
            if watched:
                first = batch[0] if isinstance(batch, tuple | list) else batch
                self.history.record_batch(f"{prefix}_loss", float(step["loss"]))
                self.history.record_batch(f"{prefix}_batch_size", get_len(first))
                self.notify("on_batch_end", batch=shown, training=training, **step)
            del step, batch, shown  # or the next batch could not use their memory
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
        """Call the callbacks, scikit-learn's too; those that ask for it end training quietly.

        skorch's EarlyStopping asks by a KeyboardInterrupt from on_epoch_end. A real Ctrl-C, which
        comes in the middle of some other line, goes on to the caller.
        """
        epochs, stop = self._epochs, False
        if epochs is not None and method_name == "on_epoch_begin":
            epochs.begin()
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as interrupt:
            line = traceback.extract_tb(interrupt.__traceback__)[-1].line or ""
            stop = method_name == "on_epoch_end" and line.startswith("raise KeyboardInterrupt")
            if not stop:
                raise
        if epochs is not None and method_name == "on_epoch_end":
            stop = epochs.end() or stop
        if stop:
            raise StopTraining

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Open a row of the history; shuffling depends on (random_state, epoch) alone."""
        super().on_epoch_begin(net, **kwargs)
        self._meter = EpochMeter(len(self.task_names_))
        seeds = np.random.SeedSequence([self.seed_, len(self.history_)])
        seed_generators(int(seeds.generate_state(1)[0]), self._device())

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Record the epoch's means: losses and weights a task, smallest cosine, changes."""
        super().on_epoch_end(net, **kwargs)
        if not self._meter.weights.n and self.history_[-1].get("train_batch_count"):
            raise TypeError(
                f"{type(self).__name__} trained without its aggregator: a train_step_single of its "
                "own must call that of MultiTaskNet"
            )
        self._descent.end_epoch()
        row = self._meter.summary() | statistics_of(self.optimizer_)
        if self.regularizer_ is not None:
            row |= self.regularizer_.statistics(self.module_)
        self._epoch_losses = {
            name: row.pop(name) for name in ("train_loss", "valid_loss") if name in row
        }
        for name, value in row.items():
            self.history_.record(name, value)
        self._descent.check_losses(row.get("train_losses", []))

    # ---- data

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return the loader; training shuffles unless ``iterator_train__shuffle`` is False."""
        if training and self.iterator_train is batches and self._shuffles_by_default():
            size = len(dataset) if self.batch_size == -1 else self.batch_size
            options = {"batch_size": size, **self.get_params_for("iterator_train")}
            missing = getattr(self, "_labels", "all") != "all"
            device = self._device()
            if device.type == "cuda":
                options["device"] = device
            return batches(dataset, **options, shuffle=True, count_labels=missing)
        return super().get_iterator(dataset, training=training)

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Return the datasets for training and validation; a stratified split sees the labels.

        A split may bring a skorch dataset of its own, with labels as the user has them.
        """
        dataset = self._rows(X, y) if self.dataset is Dataset else self.get_dataset(X, y)
        if not self.train_split:
            return dataset, None
        labels = y[0] if isinstance(y, tuple) else y
        train, valid = self.train_split(dataset, labels, **fit_params)
        if type(valid) is Dataset:
            X, y, weights = self._check(valid.X, valid.y, reset=False, part=True)
            valid = self._rows(X, y if weights is None else (y, weights))
        return train, valid

    def _rows(self, X: Any, y: Any) -> LabelledRows:
        return LabelledRows(X, y, self.tasks_, self.one_dimensional_)

    def _shuffles_by_default(self) -> bool:
        return not {"shuffle", "sampler", "batch_sampler"} & set(
            self.get_params_for("iterator_train")
        )

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
        if self.regularizer_ is not None:
            groups = self.optimizer_.param_groups
            rates = {p: float(group["lr"]) for group in groups for p in group["params"]}
            self.regularizer_.shrink(self.module_, rates)
        torch.clear_autocast_cache()  # it holds the parameters before the step
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
        torch.clear_autocast_cache()  # a closure comes here several times a step
        Xi, yi = unpack_data(batch)
        looks_again = self._descent.looks_again or self.aggregator_.needs_losses_after
        state = random_state_of(self._device()) if looks_again else None
        y_pred = self.infer(Xi, **fit_params)
        labels, weights = self._labels_and_weights(yi)
        target = labels if weights is None else (labels, weights)
        losses, rows = self._losses_and_rows(y_pred, target, Xi)
        present = None if rows is None else (rows > 0).tolist()
        forward = None
        again = None if state is None else Again(self, Xi, target, state, fit_params)
        self._again = again if self.aggregator_.needs_losses_after else None
        if not isinstance(y_pred, tuple) and self._separable():
            place = (~labels.isnan()).byte().argmax(1) if self._labels == "one" else None
            forward = Forward(y_pred, self.columns_, place, again if self._repeats else None)
        record = self._descent.backward(losses, present, forward)
        self._meter.add_losses("train", record.losses, rows, labels.shape[0])
        self._meter.add_step(record, self._descent.changes)
        return {"loss": _mean_loss(record) if self._looked_at else None, "y_pred": y_pred}

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Compute the task losses of a validation batch."""
        self._set_training(False)
        Xi, yi = unpack_data(batch)
        with torch.no_grad():
            y_pred = self.infer(Xi, **fit_params)
            losses, rows = self.task_losses(y_pred, yi, Xi)
        self._meter.add_losses("valid", losses.double(), rows, get_len(Xi))
        return {"loss": losses[rows > 0].mean(), "y_pred": y_pred}


class Again:
    """Evaluates a batch again at the parameters' present values, in the same random state.

    Buffers (running statistics) and the random generators are left as the first pass left them.
    """

    def __init__(
        self, net: TrainingLoop, X: Any, y: Any, state: list[Tensor], fit_params: dict[str, Any]
    ) -> None:
        self.net, self.X, self.y, self.state, self.fit_params = net, X, y, state, fit_params

    def __call__(self, rows: slice | None) -> tuple[Tensor, Tensor]:
        """Return (task losses, outputs) of some rows, or of all."""
        X, y = self.X, self.y
        if rows is not None:
            X, y = X[rows], tuple(v[rows] for v in y) if isinstance(y, tuple) else y[rows]
        device = self.net._device()
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


def warn_of_closures(optimizer: torch.optim.Optimizer) -> None:
    """Warn of LBFGS, whose one step is several for everything that counts or remembers steps."""
    if isinstance(optimizer, torch.optim.LBFGS):
        warnings.warn(
            "LBFGS evaluates a batch several times a step: aggregators and controllers with a "
            "memory take each for a step of its own, and history_ counts them all; it expects the "
            "gradient of one loss, as LinearScalarization gives it",
            stacklevel=4,
        )
