"""Batches sliced from whole arrays: a loader without per-row Python work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from skorch.dataset import Dataset
from torch import Tensor
from torch.utils.data import DataLoader


class SlicedBatches:
    """Iterate over (X, y) batches of two arrays by slicing a permuted copy.

    Parameters
    ----------
    X : tensor, or scipy CSR matrix (made dense a batch at a time)
    y : tensor
        The first dimension of both is the row.
    batch_size : int
    shuffle : bool
        Permute by torch's global generator, anew in every pass.
    drop_last : bool
        Leave out a last batch that is not full.
    device : torch device or None
        Where the arrays go to, once.
    count_labels : bool
        Whether to say in ``label_counts`` how many labels of each task the last batch had: (K,)
        int64 on the CPU, known without asking the device.
    """

    def __init__(
        self,
        X: Any,
        y: Tensor,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        device: torch.device | None = None,
        count_labels: bool = False,
    ) -> None:
        self.there = ~torch.isnan(y) if count_labels else None
        self.X = X.to(device) if isinstance(X, Tensor) and device is not None else X
        self.y = y if device is None else y.to(device)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.label_counts: Tensor | None = None

    def __len__(self) -> int:
        whole, rest = divmod(self.X.shape[0], self.batch_size)
        return whole + int(rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        X, y, there = self.X, self.y, self.there
        if self.shuffle:
            order = torch.randperm(X.shape[0])
            there = None if there is None else there[order]
            place = order.pin_memory().to(y.device, non_blocking=True) if y.is_cuda else order
            # one gather a pass, then views
            X, y = X[place if isinstance(X, Tensor) else order.numpy()], y[place]
        for i in range(len(self)):
            rows = slice(i * self.batch_size, (i + 1) * self.batch_size)
            if there is not None:
                self.label_counts = there[rows].sum(0)
            part = X[rows]
            yield part if isinstance(part, Tensor) else dense(part, y.device), y[rows]


def dense(rows: Any, device: torch.device) -> Tensor:
    """Return rows of a CSR matrix as a tensor."""
    return torch.from_numpy(rows.toarray()).to(device)


def batches(dataset: Any, batch_size: int, **options: Any) -> SlicedBatches | DataLoader[Any]:
    """Return :class:`SlicedBatches` for a skorch dataset of arrays, else torch's DataLoader.

    ``options`` are those of ``DataLoader``; any beyond shuffle and drop_last takes the DataLoader.
    """
    own = {name: options.pop(name) for name in ("device", "count_labels") if name in options}
    arrays = (
        type(dataset) is Dataset
        and (isinstance(dataset.X, np.ndarray | Tensor) or issparse(dataset.X))
        and isinstance(dataset.y, np.ndarray | Tensor | None)
    )
    if arrays and set(options) <= {"shuffle", "drop_last"}:
        X = dataset.X if issparse(dataset.X) else torch.as_tensor(dataset.X)
        y = torch.zeros(X.shape[0]) if dataset.y is None else torch.as_tensor(dataset.y)
        return SlicedBatches(X, y, batch_size, **options, **own)
    return DataLoader(dataset, batch_size=batch_size, **options)
