"""Batches sliced from whole arrays: a loader without per-row Python work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from skorch.dataset import Dataset
from torch import Tensor
from torch.utils.data import DataLoader


class SlicedBatches:
    """Iterate over (X, y) batches of two arrays by slicing a permuted index.

    Parameters
    ----------
    X, y : tensors whose first dimension is the row
    batch_size : int
    shuffle : bool
        Permute by torch's global generator, anew in every pass.
    drop_last : bool
        Leave out a last batch that is not full.
    """

    def __init__(
        self, X: Tensor, y: Tensor, batch_size: int, shuffle: bool = False, drop_last: bool = False
    ) -> None:
        self.X = X
        self.y = y
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last

    def __len__(self) -> int:
        whole, rest = divmod(len(self.X), self.batch_size)
        return whole + int(rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        X, y = self.X, self.y
        if self.shuffle:
            order = torch.randperm(len(X))
            X, y = X[order], y[order]  # one gather a pass, then views
        for i in range(len(self)):
            rows = slice(i * self.batch_size, (i + 1) * self.batch_size)
            yield X[rows], y[rows]


def batches(dataset: Any, batch_size: int, **options: Any) -> SlicedBatches | DataLoader[Any]:
    """Return :class:`SlicedBatches` for a skorch dataset of arrays, else torch's DataLoader.

    ``options`` are those of ``DataLoader``; any beyond shuffle and drop_last takes the DataLoader.
    """
    arrays = (
        type(dataset) is Dataset
        and isinstance(dataset.X, np.ndarray | Tensor)
        and isinstance(dataset.y, np.ndarray | Tensor | None)
    )
    if arrays and set(options) <= {"shuffle", "drop_last"}:
        X = torch.as_tensor(dataset.X)
        y = torch.zeros(len(X)) if dataset.y is None else torch.as_tensor(dataset.y)
        return SlicedBatches(X, y, batch_size, **options)
    return DataLoader(dataset, batch_size=batch_size, **options)
