"""What an epoch leaves behind: the meter behind the history and the printed table."""

from __future__ import annotations

import math
import numbers
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch.callbacks import PassthroughScoring, PrintLog
from tabulate import tabulate
from torch import Tensor

from mtlsk.gramian import min_cosine
from mtlsk.record import StepRecord


class EpochMeter:
    """Sums over the steps of one epoch, to be recorded as plain floats and lists.

    Sums stay on the device of what is added: they are fetched once, by :meth:`summary`.
    """

    def __init__(self, n_tasks: int) -> None:
        self.n_tasks = n_tasks
        # by part: sum over the batches of n_k L_k (K,), of n_k, of n mean L, of n
        self.sums: dict[str, list[Any]] = {}
        self.weights: Any = 0.0
        self.n_steps = 0
        self.gramians: list[Tensor] = []
        self.cosines: list[Tensor] = []
        self.means: dict[str, list[float]] = defaultdict(list)

    def add_losses(self, part: str, losses: Tensor, rows: Tensor | None, n: int) -> None:
        """Add the mean losses (K,), float64, of a batch of n rows.

        ``rows`` (K,) says how many of them are labelled; None means all.
        """
        values: Any = losses.detach()
        counts: Any = rows
        if not values.is_cuda:  # numpy is faster for so few numbers
            values = values.numpy()
            counts = None if rows is None else rows.numpy()
        elif rows is not None and not rows.is_cuda:
            counts = rows.pin_memory().to(values.device, non_blocking=True)
        if counts is None:
            added = [values * n, n, values.mean() * n, n]
        else:
            there = counts > 0
            xp: Any = torch if isinstance(values, Tensor) else np
            values = xp.where(there, values, 0.0)
            added = [values * counts, counts, values.sum() / there.sum() * n, n]
        sums = self.sums.get(part, [0, 0, 0, 0])
        self.sums[part] = [a + b for a, b in zip(sums, added, strict=True)]

    def add_step(self, record: StepRecord, changes: Mapping[str, Any]) -> None:
        """Add a step's task weights, smallest cosine and what its controller set."""
        self.n_steps += 1
        self.weights = self.weights + record.weights
        if record.gramian is not None and len(record.gramian) > 1:
            self.gramians.append(record.gramian)
            if len(self.gramians) == HELD:
                self._flush()
        for name, value in changes.items():
            if isinstance(value, numbers.Real):
                self.means[name].append(float(value))

    def _flush(self) -> None:
        """Reduce the Gramians held to their smallest cosines, many at once."""
        by_size: dict[int, list[Tensor]] = defaultdict(list)
        for gramian in self.gramians:
            by_size[len(gramian)].append(gramian)
        self.cosines += [min_cosine(torch.stack(group)) for group in by_size.values()]
        self.gramians = []

    def summary(self) -> dict[str, Any]:
        """Return the epoch's means: ``train_losses``, ``valid_losses``, ``task_weights``, ..."""
        row: dict[str, Any] = {}
        for part, (losses, rows, mean, n) in self.sums.items():
            counts = np.broadcast_to(np.asarray(_host(rows), dtype=float), self.n_tasks)
            with np.errstate(invalid="ignore"):  # a task without a label has no loss
                row[f"{part}_losses"] = (_host(losses) / counts).tolist()
            row[f"{part}_loss"] = float(_host(mean)) / n
        if self.n_steps:
            row["task_weights"] = (_host(self.weights) / self.n_steps).tolist()
        self._flush()
        if self.cosines:
            row["min_cosine"] = float(torch.cat(self.cosines).mean())
        return row | {name: math.fsum(v) / len(v) for name, v in self.means.items()}


HELD = 64
"""Gramians that a meter holds before it looks at them."""


def _host(values: Any) -> Any:
    return values.cpu().numpy() if isinstance(values, Tensor) else values


class EpochLoss(PassthroughScoring):  # type: ignore[misc]
    """Records the epoch's mean loss, and whether it is the best, from the net's own sums."""

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Record ``train_loss`` or ``valid_loss``, where there is one."""
        value = net._epoch_losses.get(self.name)
        if value is None:
            return
        net.history.record(self.name, value)
        best = self._is_best_score(value)
        if best:
            self.best_score_ = value
        if best is not None:
            net.history.record(f"{self.name}_best", bool(best))


def plain(row: Mapping[str, Any], key: str) -> Any:
    """Return a cell without colours: events as + or nothing, everything else as it is."""
    return ("+" if row[key] else "") if key.startswith("event_") else row[key]


class TaskPrintLog(PrintLog):  # type: ignore[misc]
    """skorch's table of epochs with one column a task, under the target's name.

    The tasks' columns hold the training loss, or the validation loss where ``train_split`` makes
    one; epoch and losses come first, the duration last.
    """

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Print the last row of the history."""
        self.task_names_ = list(net.task_names_)
        super().on_epoch_end(net, **kwargs)

    def table(self, row: Mapping[str, Any]) -> str:
        """Return header and formatted row as text."""
        tasks = row.get("valid_losses", row.get("train_losses", []))
        keys = [k for k in self._sorted_keys(row.keys()) if not isinstance(row[k], (list, dict))]
        first = [k for k in ("epoch", "train_loss", "valid_loss") if k in keys]
        rest = [k for k in keys if k not in first]
        headers = [*first, *self.task_names_, *(k.removeprefix("event_") for k in rest)]
        cells = [plain(row, k) for k in first] + list(tasks) + [plain(row, k) for k in rest]
        text: str = tabulate(
            [cells],
            headers=headers,
            tablefmt=self.tablefmt,
            floatfmt=self.floatfmt,
            stralign=self.stralign,
        )
        return text
