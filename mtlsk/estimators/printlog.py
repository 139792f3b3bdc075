"""What an epoch leaves behind: the meter behind the history and the printed table."""

from __future__ import annotations

import math
import numbers
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from skorch.callbacks import PrintLog
from tabulate import tabulate
from torch import Tensor

from mtlsk.gramian import min_cosine
from mtlsk.record import StepRecord


class EpochMeter:
    """Sums over the steps of one epoch, to be recorded as plain floats and lists."""

    def __init__(self, n_tasks: int) -> None:
        self.losses = {
            part: torch.zeros(n_tasks, dtype=torch.float64) for part in ("train", "valid")
        }
        self.rows = {part: torch.zeros(n_tasks, dtype=torch.float64) for part in ("train", "valid")}
        self.weights = torch.zeros(n_tasks, dtype=torch.float64)
        self.n_steps = 0
        self.means: dict[str, list[float]] = defaultdict(list)

    def add_losses(self, part: str, losses: Tensor, rows: Tensor) -> None:
        """Add the mean losses (K,) of a batch with so many labelled rows (K,)."""
        host, counts = losses.detach().double().cpu(), rows.double().cpu()
        self.losses[part] += torch.where(counts > 0, host, 0.0) * counts
        self.rows[part] += counts

    def add_step(self, record: StepRecord, changes: Mapping[str, Any]) -> None:
        """Add a step's task weights, smallest cosine and what its controller set."""
        self.n_steps += 1
        self.weights += record.weights
        if record.gramian is not None and len(record.gramian) > 1:
            self.means["min_cosine"].append(min_cosine(record.gramian))
        for name, value in changes.items():
            if isinstance(value, numbers.Real):
                self.means[name].append(float(value))

    def summary(self) -> dict[str, Any]:
        """Return the epoch's means: ``train_losses``, ``valid_losses``, ``task_weights``, ..."""
        row: dict[str, Any] = {}
        for part in ("train", "valid"):
            if bool((self.rows[part] > 0).any()):
                row[f"{part}_losses"] = (self.losses[part] / self.rows[part]).tolist()
        if self.n_steps:
            row["task_weights"] = (self.weights / self.n_steps).tolist()
        return row | {name: math.fsum(v) / len(v) for name, v in self.means.items()}


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
