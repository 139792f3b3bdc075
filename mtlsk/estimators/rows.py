"""The rows of a fit as a skorch dataset: numbers for the net, the user's labels for others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skorch.dataset import Dataset
from skorch.utils import multi_indexing

from mtlsk.estimators.targets import side_by_side
from mtlsk.modules import Task


class LabelledRows(Dataset):  # type: ignore[misc]
    """Rows whose batches hold what the net learns from, and whose ``y`` is as ``predict`` has it.

    A callback that takes ``X`` and ``y`` out of the dataset, such as
    ``EpochScoring(use_caching=False)``, compares ``y`` with what the net predicts for ``X``.

    Parameters
    ----------
    X : array or CSR matrix (n, d)
    coded : labels (n, K), or a pair of labels and weights
        Class indices for classes, NaN where a label is missing.
    tasks : sequence of Task
    one_dimensional : bool
        Whether ``y`` is.
    """

    def __init__(self, X: Any, coded: Any, tasks: Sequence[Task], one_dimensional: bool) -> None:
        super().__init__(X, coded)
        del self.y
        self.coded = coded
        self.classes = [task.classes for task in tasks]
        self.one_dimensional = one_dimensional

    @cached_property
    def y(self) -> NDArray[Any]:
        """The labels (n,) or (n, K) in the words of the user, None or NaN where missing."""
        labels = self.coded[0] if isinstance(self.coded, tuple) else self.coded
        pairs = zip(labels.T, self.classes, strict=True)
        columns = [column if own is None else in_words(column, own) for column, own in pairs]
        return columns[0] if self.one_dimensional else side_by_side(columns)

    def __getitem__(self, i: Any) -> Any:
        y = multi_indexing(self.coded, i, self.y_indexing)
        return self.transform(multi_indexing(self.X, i, self.X_indexing), y)


def in_words(indices: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Return the classes that indices (n,) stand for, None for NaN."""
    there = ~np.isnan(indices)
    if there.all():
        every: NDArray[Any] = classes[indices.astype(int)]
        return every
    words = np.full(len(indices), None, dtype=object)
    words[there] = classes[indices[there].astype(int)]
    return words
