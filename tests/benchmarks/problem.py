"""The problems that steps are timed on: nets, batches and task losses of a given size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mtlsk.linear_graph import Columns
from mtlsk.modules import HardSharing

N_FEATURES = 21
N_BATCHES = 16
LAYERS, NORMED, ONE_LABEL = "linear layers", "layer norm", "one label a row"


@dataclass(frozen=True)
class Setting:
    """A trunk of three layers of H units, a batch of n rows, K tasks."""

    width: int
    rows: int
    tasks: int

    def __str__(self) -> str:
        return f"H{self.width} n{self.rows} K{self.tasks}"


@dataclass(frozen=True)
class Batch:
    """Rows and labels; with ``mask`` (n, K) some labels count only, ``counts`` (K,) a task."""

    x: Tensor
    y: Tensor
    mask: Tensor | None = None
    counts: Tensor | None = None
    task_of_row: Tensor | None = None

    @property
    def present(self) -> list[bool] | None:
        """Which tasks have a label, None for all."""
        return None if self.counts is None else (self.counts > 0).tolist()

    def part(self, rows: slice | None) -> Batch:
        """Return some of the rows of a batch with all labels."""
        return self if rows is None else replace(self, x=self.x[rows], y=self.y[rows])


class NormedSharing(nn.Module):
    """Hard sharing with a layer norm after each linear layer: not a graph of linear layers."""

    def __init__(
        self, n_features: int, n_outputs: int, hidden_layer_sizes: tuple[int, ...]
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        width = n_features
        for size in hidden_layer_sizes:
            parts += [nn.Linear(width, size), nn.LayerNorm(size), nn.ReLU()]
            width = size
        self.trunk = nn.Sequential(*parts)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, X: Tensor) -> Tensor:
        """Return the outputs (n, K)."""
        out: Tensor = self.head(self.trunk(X))
        return out

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trunk's parameters."""
        return self.trunk.parameters()


class Problem:
    """Batches of a noisy teacher, the net to train on them and its task losses.

    Parameters
    ----------
    setting : Setting
    kind : LAYERS, NORMED or ONE_LABEL
    dtype : torch dtype
    """

    def __init__(
        self, setting: Setting, kind: str = LAYERS, dtype: torch.dtype = torch.float32
    ) -> None:
        self.setting, self.kind, self.dtype = setting, kind, dtype
        n, k = setting.rows, setting.tasks
        self.columns = Columns([slice(i, i + 1) for i in range(k)], k)
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(N_BATCHES, n, N_FEATURES, generator=rng)
        hidden = torch.tanh(x @ torch.randn(N_FEATURES, 32, generator=rng) / N_FEATURES**0.5)
        y = hidden @ torch.randn(32, k, generator=rng)
        y = y / y.std((0, 1)) + 0.3 * torch.randn(y.shape, generator=rng)
        task = torch.arange(n) % k
        mask = torch.zeros(n, k, dtype=dtype).scatter_(1, task.unsqueeze(1), 1.0)
        self.batches = [Batch(a, b) for a, b in zip(x.to(dtype), y.to(dtype), strict=True)]
        if kind == ONE_LABEL:
            self.batches = [
                replace(b, y=b.y * mask, mask=mask, counts=mask.sum(0), task_of_row=task)
                for b in self.batches
            ]

    def batch(self, number: int) -> Batch:
        """Return the batch of a step."""
        return self.batches[number % N_BATCHES]

    def module(self) -> nn.Module:
        """Return the net, the same at every call."""
        sizes = (self.setting.width,) * 3
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net: nn.Module = (
                NormedSharing(N_FEATURES, self.setting.tasks, sizes)
                if self.kind == NORMED
                else HardSharing(N_FEATURES, self.setting.tasks, sizes)
            )
        return net.to(self.dtype)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean squared error of each task over its labels, shape (K,)."""
        if batch.mask is None or batch.counts is None:
            return (outputs - batch.y).square().mean(0)
        return ((outputs - batch.y) * batch.mask).square().sum(0) / batch.counts.clamp_min(1)

    def mean_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean of the task losses, the way a plain loop would."""
        if batch.mask is None or batch.counts is None:
            return nn.functional.mse_loss(outputs, batch.y)
        losses = self.losses(outputs, batch)
        return losses.sum() / (batch.counts > 0).sum()
