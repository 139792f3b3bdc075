"""Batches sliced from whole arrays: a loader without per-row Python work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from skorch.dataset import Dataset
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from mtlsk.estimators.rows import LabelledRows


class SlicedBatches:
    """Iterate over (X, y) or (X, (y, weights)) batches by slicing permuted copies of arrays.

    Parameters
    ----------
    X : tensor, or scipy CSR matrix (made dense a batch at a time)
    y : tensor
        The first dimension of both is the row.
    weights : tensor of y's shape, or None
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
        weights: Tensor | None = None,
    ) -> None:
        self.there = ~torch.isnan(y) if count_labels else None
        self.weights = weights if weights is None or device is None else weights.to(device)
        self.X = X.to(device) if isinstance(X, Tensor) and device is not None else X
        self.y = y if device is None else y.to(device)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.label_counts: Tensor | None = None

    def __len__(self) -> int:
        whole, rest = divmod(self.X.shape[0], self.batch_size)
        return whole + int(rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        X, y, there, weights = self.X, self.y, self.there, self.weights
        if self.shuffle:
            order = torch.randperm(X.shape[0])
            there = None if there is None else there[order]
            place = order.pin_memory().to(y.device, non_blocking=True) if y.is_cuda else order
            # one gather a pass, then views
            X, y = X[place if isinstance(X, Tensor) else order.numpy()], y[place]
            weights = None if weights is None else weights[place]
        for i in range(len(self)):
            rows = slice(i * self.batch_size, (i + 1) * self.batch_size)
            if there is not None:
                self.label_counts = there[rows].sum(0)
            part = X[rows]
            features = part if isinstance(part, Tensor) else dense(part, y.device)
            yield features, y[rows] if weights is None else (y[rows], weights[rows])


def dense(rows: Any, device: torch.device) -> Tensor:
    """Return rows of a CSR matrix as a tensor."""
    return torch.from_numpy(rows.toarray()).to(device)


def batches(dataset: Any, batch_size: int, **options: Any) -> SlicedBatches | DataLoader[Any]:
    """Return :class:`SlicedBatches` for a skorch dataset of arrays, else torch's DataLoader.

    Subsets, as a validation split makes them, are taken as the arrays they are. ``options`` are
    those of ``DataLoader``; any beyond shuffle and drop_last takes the DataLoader.
    """
    own = {name: options.pop(name) for name in ("device", "count_labels") if name in options}
    arrays = arrays_of(dataset) if set(options) <= {"shuffle", "drop_last"} else None
    if arrays is None:
        return DataLoader(dataset, batch_size=batch_size, **options)
    X, y, weights = arrays
    X = X if issparse(X) else torch.as_tensor(X)
    y = torch.zeros(X.shape[0]) if y is None else torch.as_tensor(y)
    weights = None if weights is None else torch.as_tensor(weights)
    return SlicedBatches(X, y, batch_size, **options, **own, weights=weights)


def arrays_of(dataset: Any) -> tuple[Any, Any, Any] | None:
    """Return the arrays (X, y, weights) of a skorch dataset, or of part of one; None for others."""
    if type(dataset) is Subset:
        whole, rows = arrays_of(dataset.dataset), np.asarray(dataset.indices)
        if whole is None:
            return None
        X, y, weights = (None if a is None else a[rows] for a in whole)
        return X, y, weights
    if type(dataset) not in (Dataset, LabelledRows):
        return None
    X, weights = dataset.X, None
    y = dataset.coded if isinstance(dataset, LabelledRows) else dataset.y
    if isinstance(y, tuple) and len(y) == 2:
        y, weights = y
    if not (isinstance(X, np.ndarray | Tensor) or issparse(X)):
        return None
    if not all(isinstance(a, np.ndarray | Tensor | None) for a in (y, weights)):
        return None
    return X, y, weights
