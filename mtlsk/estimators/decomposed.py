"""DecomposedRegressor: the mean loss of a regressor, cut into other tasks than its targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtlsk.estimators.regressor import MultiTaskRegressor


class DecomposedRegressor(MultiTaskRegressor):
    """A MultiTaskRegressor whose tasks are T L, mixtures of the losses L of its targets.

    Where the columns of T sum to 1, as those of :mod:`mtlsk.decomposition` do, the mean loss is
    that of the targets and only its parts differ: what an aggregator sees and weights. Mixtures may
    be negative, and certificates that need losses >= 0 then say so.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`MultiTaskRegressor`.
    mixing : list of K lists of K floats, or None
        T; None leaves the tasks as they are. In ``history_`` and ``certify`` task k is row k,
        under the name of target k. Predictions and scores are of the targets.

    Raises
    ------
    ValueError
        For a T that is no (K, K) matrix of numbers, and for missing labels.
    """

    def __init__(self, *args: Any, mixing: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mixing = mixing

    def task_losses(self, y_pred: Tensor, y: Any, X: Any = None) -> tuple[Tensor, Tensor]:
        """Return the losses T L of a batch and the number of rows of each, both (K,)."""
        losses, rows = super().task_losses(y_pred, y, X)
        if self.mixing is None:
            return losses, rows
        mixing = torch.as_tensor(self.mixing, dtype=losses.dtype, device=losses.device)
        if mixing.shape != (len(losses), len(losses)) or not bool(mixing.isfinite().all()):
            raise ValueError(
                f"mixing has shape {tuple(mixing.shape)} for {len(losses)} targets; give "
                f"{len(losses)} rows of {len(losses)} finite numbers"
            )
        if bool((rows < len(y_pred)).any()):
            raise ValueError(
                "Input y contains NaN: mixtures of losses need every label; leave those rows out"
            )
        return mixing @ losses, rows
