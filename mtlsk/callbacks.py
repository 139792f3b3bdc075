"""ConflictLog: the conflict of the tasks, epoch by epoch, for nets that never look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlsk.estimators import MultiTaskNet
from mtlsk.estimators.gradients import gramian_over
from mtlsk.estimators.parameters import is_whole
from mtlsk.estimators.printlog import EpochCallback, MeanCosines


class ConflictLog(EpochCallback):
    """Record the cosines between the task gradients of whole sets of rows, after an epoch.

    ``history_[i, "logged_cosines"]`` is cos(g_i, g_j) (K, K), each g_k the gradient over the
    shared parameters of the task's loss on the rows, in evaluation mode, after the epoch's last
    step, without sample weights; NaN for a task without a label there or with a gradient of zero.
    It is for nets whose steps have no Gramian (linear scalarization, methods of losses alone), and
    for rows other than those of the steps. Training is the same to the bit with it and without;
    each time it costs K backward passes over the rows.

    Parameters
    ----------
    X, y : arrays as the net sees them (behind the transformers of a Pipeline), or None
        Rows to look at; None takes rows of the training data, without those that ``train_split``
        holds back.
    every : int
        Record after the first epoch and every so many epochs from there.
    n_rows : int
        At most so many rows of the training data, drawn once in a fit.
    random_state : int
        Seeds that draw.
    name : str
        The column of the history, one for each ConflictLog of a net.

    Raises
    ------
    ValueError
        When training begins, for a parameter that is not allowed.
    """

    def __init__(
        self,
        X: Any = None,
        y: Any = None,
        every: int = 1,
        n_rows: int = 1000,
        random_state: int = 0,
        name: str = "logged_cosines",
    ) -> None:
        self.X = X
        self.y = y
        self.every = every
        self.n_rows = n_rows
        self.random_state = random_state
        self.name = name

    def initialize(self) -> Self:
        """Forget the rows drawn."""
        self.rows_: tuple[NDArray[Any], NDArray[Any]] | None = None
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Check the parameters; a new training draws its rows anew."""
        if (self.X is None) != (self.y is None):
            missing = "X" if self.X is None else "y"
            raise ValueError(f"ConflictLog needs both X and y, or neither: {missing} is None")
        for name in ("every", "n_rows"):
            if not is_whole(getattr(self, name), 1):
                value = getattr(self, name)
                raise ValueError(
                    f"ConflictLog: {name}={value!r} is not allowed; use an integer >= 1"
                )
        if not isinstance(net, MultiTaskNet):
            raise ValueError(f"ConflictLog needs an mtlsk net, {type(net).__name__} is none")
        self.rows_ = None

    def on_epoch_end(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Record the cosines, where this epoch's turn is."""
        if (len(net.history) - 1) % self.every:
            return
        with untouched(net):
            gramian, _ = self._gramian(net, dataset_train)
        cosines = MeanCosines(len(gramian))
        cosines.add(gramian, range(len(gramian)))
        net.history.record(self.name, cosines.value())

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Let go of the rows: they would be in every pickle of the net."""
        self.rows_ = None

    def _gramian(self, net: MultiTaskNet, dataset: Any) -> tuple[Tensor, Tensor]:
        if self.X is not None:
            return net.task_gramian(self.X, self.y)
        if self.rows_ is None:
            n = len(dataset)
            draw = np.random.default_rng(self.random_state)
            chosen = np.sort(draw.permutation(n)[: self.n_rows])
            features, targets = zip(*(dataset[int(i)] for i in chosen), strict=True)
            # weights of rows come beside the labels
            labels = [y[0] if isinstance(y, tuple | list) else y for y in targets]
            self.rows_ = np.stack(features), np.stack(labels)
        return gramian_over(net, *self.rows_)


@contextmanager
def untouched(net: Any) -> Iterator[None]:
    """Leave modes and buffers of the net's module and torch's generators as they were."""
    modules = list(net.module_.modules())
    modes = [module.training for module in modules]
    holders = [module._buffers for module in modules if module._buffers]
    kept = [dict(buffers) for buffers in holders]
    device = net._device()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            for buffers in holders:
                for name, b in buffers.items():
                    buffers[name] = None if b is None else b.clone()
            yield
        finally:
            for buffers, before in zip(holders, kept, strict=True):
                buffers.update(before)
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
