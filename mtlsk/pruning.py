"""Dominated: ends a fit whose tasks' validation losses several finished trials dominate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from skorch.callbacks import Callback

from mtlsk.pareto import dominating
from mtlsk.problem import Fold, task_losses

Curves = Sequence[Sequence[Sequence[float]]]


class Dominated(Callback):  # type: ignore[misc]
    """Record the validation losses after each epoch, and prune where too many trials were better.

    Optuna's own pruners compare one number; here trial t counts against this one after epoch e
    where L_k(t, e) <= L_k(e) for every task k, and < for one. Ours.

    Parameters
    ----------
    fold : Fold
        Measured on its validation rows.
    curves : list of (epochs, K)
        Validation losses of finished trials, epoch by epoch.
    dominated_by : int
        Trials that must dominate.
    after : int
        The first epoch that may be the last, from 1.

    Raises
    ------
    optuna.TrialPruned
        After an epoch.
    """

    def __init__(self, fold: Fold, curves: Curves, dominated_by: int, after: int) -> None:
        self.fold: Fold | None = fold
        self.curves = curves
        self.dominated_by = dominated_by
        self.after = after
        self.curve: list[list[float]] = []

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Measure and compare."""
        if self.fold is None:  # a kept model that is trained on
            return
        X, y = self.fold.measured["validation"]
        losses = task_losses(y, net.predict(X))
        self.curve.append(losses.tolist())
        epoch = len(self.curve)
        if epoch < self.after or not np.isfinite(losses).all():  # it will diverge by itself
            return
        earlier = [curve[epoch - 1] for curve in self.curves if len(curve) >= epoch]
        earlier = [there for there in earlier if np.isfinite(there).all()]
        found = dominating(losses, earlier) if earlier else 0
        if found >= self.dominated_by:
            raise optuna.TrialPruned(
                f"after epoch {epoch}: {found} finished trials had lower validation losses"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the data and the other trials behind: a kept model needs neither."""
        return {**self.__dict__, "fold": None, "curves": []}
