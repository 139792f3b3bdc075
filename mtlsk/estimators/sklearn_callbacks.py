"""scikit-learn's callbacks (from 1.9 on) hear of a fit and of each of its epochs.

.. code:: python

    from sklearn.callback import ProgressBar, ScoringMonitor

    net = MultiTaskRegressor().set_callbacks(ProgressBar(), ScoringMonitor(scoring="r2"))
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any

from mtlsk.estimators.parameters import is_whole

__all__ = ["CallbackSupportMixin", "Epochs", "announced"]

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before 1.9: there is nothing to support

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands where scikit-learn has no callbacks."""

    def with_callbacks(method: Any) -> Any:
        """Return the method."""
        return method


class Epochs:
    """Tells the callbacks of a net, if it has some, when an epoch begins and when it ends.

    Parameters
    ----------
    net : MultiTaskNet
    context : CallbackContext of the fit
    data : dict
        ``X``, ``y`` and ``metadata`` as the user gave them.
    """

    def __init__(self, net: Any, context: Any, data: dict[str, Any]) -> None:
        self.net = net
        self.context = context
        self.data = data

    def begin(self) -> None:
        """Announce an epoch."""
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(estimator=self.net, **self.data)

    def end(self) -> bool:
        """Announce its end, and return whether a callback asks to stop."""
        return self._end(self.epoch)

    def finish(self) -> None:
        """Announce the end of the fit."""
        self._end(self.context)

    def _end(self, context: Any) -> bool:
        net = self.net
        stop = context.call_on_fit_task_end(
            estimator=net,
            # a copy, and only where a callback looks: predictions change the module's mode
            reconstruction_attributes=lambda: {"module_": copy.deepcopy(net.module_)},
            **self.data,
        )
        return bool(stop)


def announced(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``fit(net, X, y, sample_weight)`` so that it and its epochs are announced."""

    @wraps(fit)
    def announcing(net: Any, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Any:
        if not getattr(net, "_skl_callbacks", None):
            return fit(net, X, y, sample_weight, **params)
        epochs = net.max_epochs if is_whole(net.max_epochs, 0) else None  # fit will complain
        context = net._init_callback_context(max_subtasks=epochs)
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        data = {"X": X, "y": y, "metadata": metadata}
        context.call_on_fit_task_begin(estimator=net, **data)
        net._epochs = events = Epochs(net, context, data)
        try:
            fit(net, X, y, sample_weight, **params)
        finally:
            net.__dict__.pop("_epochs", None)
        events.finish()
        return net

    wrapped: Callable[..., Any] = with_callbacks(announcing)
    return wrapped
