"""What was measured of a fitted net on some rows, and what a finding about it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlsk.gramian import cosines
from mtlsk.simplex import min_norm_point

SHOWN = 5
"""Pairs, tasks or weights named in one sentence."""
LONGEST = 28
"""Characters of a task's name in a sentence."""


@dataclass(frozen=True)
class Finding:
    """One sentence about a net, and what to try.

    Attributes
    ----------
    topic : str
    sentence : str
    params : dict
        Parameters for ``set_params`` of the net; empty where there is nothing to set.
    """

    topic: str
    sentence: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of a fitted net on some rows.

    Attributes
    ----------
    names : tuple of K str
    gramian : tensor of shape (K, K)
        Of the losses' gradients, without ``task_scale``.
    losses : tensor of shape (K,)
    labelled : tuple of K int
        Rows with a label.
    n_rows, n_shared : int
        Rows, and parameters that the tasks share.
    scale : tuple of K float, or None
        The ``task_scale`` in force.
    history : sequence of dicts
        A row an epoch, as in ``history_``.
    aggregator : str
        The name of the class.
    """

    names: tuple[str, ...]
    gramian: Tensor
    losses: Tensor
    labelled: tuple[int, ...]
    n_rows: int
    n_shared: int
    scale: tuple[float, ...] | None = None
    history: Sequence[Mapping[str, Any]] = ()
    aggregator: str = ""

    @cached_property
    def alive(self) -> list[int]:
        """The tasks whose gradient, as the aggregator sees it, is not zero."""
        squares = self.seen.diagonal()
        return [k for k, s in enumerate(squares.tolist()) if s > 1e-24 * float(squares.max())]

    @cached_property
    def seen(self) -> Tensor:
        """The Gramian with ``task_scale`` applied, (K, K)."""
        if self.scale is None:
            return self.gramian
        s = torch.tensor(self.scale, dtype=torch.float64)
        return self.gramian * s[:, None] * s

    @cached_property
    def cosines(self) -> Tensor:
        """Cosines between task gradients, (K, K), rows of zero gradients 0."""
        return cosines(self.gramian)

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """|g_k| with ``task_scale`` applied, (K,)."""
        norms: NDArray[np.float64] = np.sqrt(np.maximum(self.seen.diagonal().numpy(), 0.0))
        return norms

    @cached_property
    def mean_cosines(self) -> NDArray[np.float64]:
        """cos(g_k, g0) with the mean gradient g0, (K,); 0 where one of them is zero."""
        w0 = np.full(len(self.names), 1 / len(self.names))
        progress = self.seen.numpy() @ w0
        length = self.norms * math.sqrt(max(float(w0 @ progress), 0.0))
        found = np.zeros(len(progress))
        np.divide(progress, length, out=found, where=length > 0)
        return found

    @cached_property
    def common(self) -> tuple[NDArray[np.float64], float]:
        """Weights (K,) of the best common direction of unit gradients, and its progress.

        The shortest point v of the hull of the unit gradients: |v| is the largest progress that a
        direction of length 1 leaves each task, as a share of the task's own steepest descent.
        """
        unit = self.cosines[self.alive][:, self.alive].numpy()
        v = min_norm_point(unit)
        weights = np.zeros(len(self.names))
        weights[self.alive] = v / self.norms[self.alive]
        return weights / weights.sum(), math.sqrt(max(float(v @ unit @ v), 0.0))

    @cached_property
    def dual(self) -> NDArray[np.float64]:
        """MGDA's min-norm weights of the gradients as they are, (K,); 0 without a gradient."""
        g = self.seen[self.alive][:, self.alive]
        weights = np.zeros(len(self.names))
        if not self.alive:
            return weights
        weights[self.alive] = min_norm_point((g / g.diagonal().max()).numpy())
        return weights

    def name(self, k: int) -> str:
        """Return a task's name in quotes, cut where it is long."""
        name = self.names[k]
        return f"'{name if len(name) <= LONGEST else name[: LONGEST - 3] + '...'}'"

    def some(self, tasks: Sequence[int]) -> str:
        """Return the names of tasks, the first few of many."""
        shown = ", ".join(self.name(k) for k in tasks[:SHOWN])
        return shown + (f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else "")


def named(m: Measured, values: Sequence[float]) -> str:
    """Return numbers, one a task, the first few of many."""
    shown = ", ".join(f"{m.name(k)} {v:g}" for k, v in enumerate(values[:SHOWN]))
    return f"({shown}{', ...' if len(values) > SHOWN else ''})"


def significant(values: NDArray[np.float64]) -> list[float]:
    """Return numbers to three significant digits."""
    return [float(f"{v:.3g}") for v in values]
