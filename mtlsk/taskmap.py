"""The task map P: which tasks an aggregator sees, merged and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlsk.domains import Simplex

SCALE = Simplex(total="n_tasks", optional=True)
"""Domain of ``task_scale``: searched with mean 1, so that equal scales change nothing."""


class TaskMap:
    """The matrix P (K', K) between the K tasks of the data and the K' an aggregator sees.

    Its row for a group holds, for each member with a label in the batch, the member's scale times
    K'/n, n the number of present tasks and K' of present groups: the mean of P L over its K' rows
    is the mean of the scaled losses over the n tasks, whatever the grouping.

    Parameters
    ----------
    n_tasks : int
        K.
    scale : sequence of K non-negative floats, or None
        Factor of each task's loss; None is 1 for all.
    groups : list of lists of int, or None
        A partition of the tasks; None leaves each on its own.
    """

    def __init__(
        self,
        n_tasks: int,
        scale: Sequence[float] | None = None,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.n_tasks = n_tasks
        self.scale = scale
        self.groups = groups

    @property
    def scale(self) -> list[float] | None:
        """Factor of each task's loss, or None."""
        return self._scale

    @scale.setter
    def scale(self, value: Sequence[float] | None) -> None:
        if value is not None and not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
            value = [v.item() if hasattr(v, "item") else v for v in value]  # arrays and tensors
        if value not in SCALE:
            raise ValueError(f"task_scale={value!r} is not allowed; it must be {SCALE}")
        if value is not None and len(value) != self.n_tasks:
            raise ValueError(
                f"task_scale has {len(value)} entries for {self.n_tasks} tasks; give one a task"
            )
        self._scale = None if value is None else [float(v) for v in value]
        self._whole: Tensor | None = None  # P with all tasks present, made once

    @property
    def groups(self) -> list[list[int]] | None:
        """The partition of the tasks, or None."""
        return self._groups

    @groups.setter
    def groups(self, value: Sequence[Sequence[int]] | None) -> None:
        groups = None if value is None else [[int(k) for k in group] for group in value]
        if groups is not None and not self._is_partition(groups):
            raise ValueError(
                f"task_groups={value!r} is no partition of the tasks 0..{self.n_tasks - 1}; "
                "every task must be in exactly one group"
            )
        self._groups = groups
        self._whole = None

    def _is_partition(self, groups: list[list[int]]) -> bool:
        members = sorted(k for group in groups for k in group)
        return members == list(range(self.n_tasks)) and all(groups)

    def matrix(self, present: Sequence[int]) -> tuple[Tensor | None, tuple[int, ...] | None]:
        """Return P restricted to the present tasks (K', n), and the indices of its groups.

        P is None where it is the identity, the indices are where every group is there.
        """
        if self._scale is None and self._groups is None:
            return None, None if len(present) == self.n_tasks else tuple(present)
        everything = len(present) == self.n_tasks
        if everything and self._whole is not None:
            return self._whole, None
        column = {k: j for j, k in enumerate(present)}
        groups = self._groups or [[k] for k in range(self.n_tasks)]
        rows = [(i, [k for k in group if k in column]) for i, group in enumerate(groups)]
        rows = [(i, members) for i, members in rows if members]
        p = torch.zeros((len(rows), len(present)), dtype=torch.float64)
        for r, (_, members) in enumerate(rows):
            for k in members:
                scale = 1.0 if self._scale is None else self._scale[k]
                p[r, column[k]] = scale * len(rows) / len(present)
        if everything:
            self._whole = p
        active = tuple(i for i, _ in rows)
        return p, None if len(active) == len(groups) else active

    def state_dict(self) -> dict[str, Any]:
        """Return scale and groups."""
        return {"scale": self._scale, "groups": self._groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over scale and groups."""
        self.scale, self.groups = state["scale"], state["groups"]


def mapped(p: Tensor | None, values: Tensor) -> Tensor:
    """Return P v or P G P^T for the matrix P of a task map, None for the identity."""
    if p is None:
        return values
    return p @ values if values.ndim == 1 else p @ values @ p.T


def mapped_back(p: Tensor | None, weights: Tensor) -> Tensor:
    """Return P^T w."""
    return weights if p is None else p.T @ weights
