"""What an epoch leaves behind: the meter behind the history and the printed table."""

from __future__ import annotations

import math
import numbers
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from skorch.callbacks import Callback, PassthroughScoring, PrintLog
from tabulate import tabulate
from torch import Tensor

from mtlsk.controllers import Change
from mtlsk.gramian import cosines, min_cosine
from mtlsk.record import StepRecord


class EpochMeter:
    """What the steps of one epoch did, to be recorded as plain floats and lists.

    Steps only append; sums are made of many at once, on the device of what was added, and fetched
    by :meth:`summary`.
    """

    def __init__(self, n_tasks: int) -> None:
        self.n_tasks = n_tasks
        self.parts: dict[str, PartSums] = {}
        self.weights = Mean()
        self.gramians: list[Tensor] = []
        self.smallest: list[Tensor] = []
        self.cosines = MeanCosines(n_tasks)
        self.changed: dict[str, list[float]] = defaultdict(list)
        self.runs: dict[str, dict[str, Any]] = {}  # the last entry of each name
        self.entries: list[dict[str, Any]] = []

    def add_losses(self, part: str, losses: Tensor, rows: Tensor | None, n: int) -> None:
        """Add the mean losses (K,), float64, of a batch of n rows.

        ``rows`` (K,) says how many of them are labelled; None means all.
        """
        sums = self.parts.get(part)
        if sums is None:
            sums = self.parts[part] = PartSums()
        sums.add(losses, rows, n)

    def add_step(self, record: StepRecord, changes: Mapping[str, Change]) -> None:
        """Add a step's task weights, cosines and what its controller set, and why."""
        self.weights.add(record.weights)
        if record.task_gramian is not None:
            self.cosines.add(record.task_gramian, record.present)
        if record.gramian is not None and len(record.gramian) > 1:
            self.gramians.append(record.gramian)
            if len(self.gramians) == HELD:
                self._flush()
        for name, (value, reason) in changes.items():
            if isinstance(value, numbers.Real):
                value = float(value)
                self.changed[name].append(value)
            run = self.runs.get(name)
            follows = run is not None and record.step == run["step"] + run["n"]
            if run is not None and follows and run["reason"] == reason:
                run["value"], run["n"] = value, run["n"] + 1
                continue
            entry = {"step": record.step, "name": name, "value": value, "reason": reason, "n": 1}
            self.runs[name] = entry
            self.entries.append(entry)

    def _flush(self) -> None:
        """Reduce the Gramians held to their smallest cosines, many at once."""
        by_size: dict[int, list[Tensor]] = defaultdict(list)
        for gramian in self.gramians:
            by_size[len(gramian)].append(gramian)
        self.smallest += [min_cosine(torch.stack(group)) for group in by_size.values()]
        self.gramians = []

    def summary(self) -> dict[str, Any]:
        """Return the epoch's means: ``train_losses``, ``valid_losses``, ``task_weights``, ...

        And ``changes``, what the controller changed: a list of dicts of the ``step`` (the first
        of ``n`` steps in a row with the same reason), ``name``, last ``value``, and ``reason``.
        """
        row: dict[str, Any] = {}
        for part, sums in self.parts.items():
            row[f"{part}_losses"], row[f"{part}_loss"] = sums.means()
        if self.weights.n:
            row["task_weights"] = self.weights.value().tolist()
        self._flush()
        if self.smallest:
            row["min_cosine"] = float(torch.cat(self.smallest).mean())
        if self.cosines.n:
            row["cosines"] = self.cosines.value()
        row["changes"] = self.entries
        return row | {name: math.fsum(v) / len(v) for name, v in self.changed.items()}


HELD = 64
"""Steps that are held before they are summed."""


class Mean:
    """The mean of tensors of one shape."""

    def __init__(self) -> None:
        self.n = 0
        self.held: list[Tensor] = []
        self.total: Tensor | float = 0.0

    def add(self, value: Tensor) -> None:
        """Add one."""
        self.n += 1
        self.held.append(value)
        if len(self.held) == HELD:
            self.flush()

    def flush(self) -> None:
        """Sum what is held."""
        if self.held:
            self.total = self.total + torch.stack(self.held).sum(0)
            self.held = []

    def value(self) -> Tensor:
        """Return the mean, on the CPU."""
        self.flush()
        assert isinstance(self.total, Tensor)
        return self.total.cpu() / self.n


class MeanCosines:
    """The mean over steps of cos(g_i, g_j), over those in which both gradients were not zero.

    Parameters
    ----------
    n_tasks : int
        K.
    """

    def __init__(self, n_tasks: int) -> None:
        self.n = 0
        self.held: list[tuple[Tensor, Sequence[int]]] = []
        self.sums = torch.zeros(2, n_tasks * n_tasks, dtype=torch.float64)  # of cosines, of pairs

    def add(self, gramian: Tensor, present: Sequence[int]) -> None:
        """Add the Gramian (n, n) of the n present tasks' gradients in one step."""
        self.n += 1
        self.held.append((gramian, present))
        if len(self.held) == HELD:
            self.flush()

    def flush(self) -> None:
        """Sum what is held, all steps with the same number of tasks at once."""
        k = math.isqrt(self.sums.shape[1])
        by_size: dict[int, list[tuple[Tensor, Sequence[int]]]] = defaultdict(list)
        for step in self.held:
            by_size[len(step[1])].append(step)
        for n, steps in by_size.items():
            gramians = torch.stack([gramian for gramian, _ in steps])
            there = gramians.diagonal(dim1=-2, dim2=-1) > 0
            pairs = (there.unsqueeze(-1) & there.unsqueeze(-2)).double()
            parts = torch.stack([cosines(gramians), pairs])  # (2, S, n, n); 0 where there is none
            if n == k:
                self.sums += parts.sum(1).reshape(2, -1)
            else:
                tasks = torch.tensor([list(present) for _, present in steps])
                place = tasks.unsqueeze(-1) * k + tasks.unsqueeze(-2)
                self.sums.index_add_(1, place.reshape(-1), parts.reshape(2, -1))
        self.held = []

    def value(self) -> list[list[float]]:
        """Return the means (K, K): 1 on the diagonal, NaN for a pair that never was."""
        self.flush()
        k = math.isqrt(self.sums.shape[1])
        means = (self.sums[0] / self.sums[1]).reshape(k, k)
        diagonal = means.diagonal()
        diagonal[~diagonal.isnan()] = 1.0  # but for rounding it is
        found: list[list[float]] = means.tolist()
        return found


class PartSums:
    """Sums over the batches of training or validation: losses a task, and their mean."""

    def __init__(self) -> None:
        self.held: list[tuple[Tensor, Tensor | None, int]] = []
        self.sums: Tensor | float = 0.0  # of n_k L_k (K,), n_k (K,), n mean_k L_k, n

    def add(self, losses: Tensor, rows: Tensor | None, n: int) -> None:
        """Add the losses (K,) of a batch."""
        self.held.append((losses.detach(), rows, n))
        if len(self.held) == HELD:
            self.flush()

    def flush(self) -> None:
        """Sum what is held."""
        if not self.held:
            return
        losses = torch.stack([step[0] for step in self.held])  # (S, K)
        n = to_device(torch.tensor([[step[2]] for step in self.held]).double(), losses)  # (S, 1)
        rows = [step[1] for step in self.held]
        if any(r is None for r in rows):
            counts = n.expand_as(losses)
        else:
            counts = to_device(torch.stack([r for r in rows if r is not None]).double(), losses)
        there = counts > 0
        losses = torch.where(there, losses, 0.0)
        mean = losses.sum(1, keepdim=True) / there.sum(1, keepdim=True)
        parts = [(losses * counts).sum(0), counts.sum(0), (mean * n).sum(0), n.sum(0)]
        self.sums = self.sums + torch.cat(parts)
        self.held = []

    def means(self) -> tuple[list[float], float]:
        """Return the mean loss of each task over its labelled rows (NaN: none), and of all."""
        self.flush()
        assert isinstance(self.sums, Tensor)
        *values, total, n = self.sums.tolist()
        k = len(values) // 2
        pairs = zip(values[:k], values[k:], strict=True)
        return [loss / rows if rows else math.nan for loss, rows in pairs], total / n


def to_device(values: Tensor, like: Tensor) -> Tensor:
    """Return values where ``like`` is, without waiting for a device."""
    if like.is_cuda and not values.is_cuda:
        return values.pin_memory().to(like.device, non_blocking=True)
    return values


class EpochCallback(Callback):  # type: ignore[misc]
    """A callback that looks at no single batches, so that the history need not keep them."""


class EpochLoss(PassthroughScoring):  # type: ignore[misc]
    """Records the epoch's mean loss, and whether it is the best, from the net's own sums."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Take the best so far from the history, which may have been loaded."""
        best = [row[self.name] for row in net.history if row.get(f"{self.name}_best")]
        if best:
            self.best_score_ = best[-1]

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
