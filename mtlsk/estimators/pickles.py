"""Pickles of a net, and the plain data that skops makes of it."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from sklearn.base import clone
from skorch.exceptions import DeviceWarning
from torch import nn

from mtlsk.component import Component
from mtlsk.estimators.persistence import COMPONENTS, Persistence
from mtlsk.estimators.schedules import saved_schedules
from mtlsk.estimators.statefile import on_cpu

OF_ONE_TRAINING = {
    "_again",
    "_batch_rows",
    "_descent",
    "_epoch_losses",
    "_epochs",
    "_grad_watched",
    "_labels",
    "_looked_at",
    "_meter",
    "_not_saved",
    "_steps_before",
}
"""Attributes that mean nothing outside the training they are of."""

BUILT = {
    "callbacks_",
    "columns_",
    "criterion_",
    "cuda_dependent_attributes_",
    "history_",
    "init_context_",
    "initialized_",
    "module_",
    "n_steps_",
    "optimizer_",
    "prefixes_",
    "seed_",
    "task_map_",
    "virtual_params_",
    *(f"{owner}_" for owner in COMPONENTS),
}
"""Attributes that ``initialize`` makes and a saved training fills."""

DATA = "mtlsk.data"
"""Key of the state that is data, with its version."""


class Pickles(Persistence):
    """Pickles, copies and skops files of a net.

    A pickle holds the objects themselves, as skorch's does, also in the middle of training, and all
    tensors in it go to the devices there are. What :meth:`__getstate__` returns to anyone else,
    skops above all, is data: the parameters, what was learned of the shape of the data, and the
    bytes of a training as ``save_params(f_training=...)`` writes it. Nothing in it is a pickle, so
    the types that skops lists are all there are; the net is built anew from the parameters.
    """

    # names, or beginnings of names, of all that may hold a tensor
    cuda_dependent_attributes_ = [
        *(f"{owner}_" for owner in COMPONENTS),
        "_kept",
        "callbacks",
        "columns_",
        "criterion",
        "module",
        "task_map_",
    ]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return what pickle and copy work with."""
        self.__dict__["_pickled"] = True
        try:
            return super().__reduce_ex__(protocol)
        finally:
            del self.__dict__["_pickled"]

    def __getstate__(self) -> dict[str, Any]:
        if "_pickled" not in self.__dict__:
            return self._data()
        everything = dict(self.__dict__)
        now = {n: v for n, v in everything.items() if n not in {*OF_ONE_TRAINING, "_pickled"}}
        if "_descent" in everything:  # a callback pickles in the middle of training
            now["n_steps_"], now["_kept"] = self._position()
            now["_schedules"] = saved_schedules(self, everything.get("_steps_before", {}))
        self.__dict__ = now
        try:
            state: dict[str, Any] = super().__getstate__()
        finally:
            self.__dict__ = everything
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if DATA in state:
            self._from_data(state)
            return
        word: str = state["device"]
        if word == "auto":
            state = {**state, "device": "cuda" if torch.cuda.is_available() else "cpu"}
        super().__setstate__(state)
        if word == "auto":
            self.device = word
        elif str(self.device) != str(word):  # skorch has put another in its place
            self.device = str(self.device)
        if not self.initialized_:
            return
        # skorch takes all tensors to the net's device; those that belong there go there again
        self._kept = on_cpu(self._kept)
        for owner in (*COMPONENTS, "task_map"):
            component = getattr(self, f"{owner}_")
            if component is not None:
                component.load_state_dict(on_cpu(component.state_dict()))

    def _data(self) -> dict[str, Any]:
        # callbacks without what they remember: it may hold the optimizer
        params = {**self.get_params(deep=False), "callbacks": clone(self.callbacks, safe=False)}
        if isinstance(self.module, nn.Module):
            raise TypeError(
                f"module={type(self.module).__name__}(...) is an instance, which no skops file can "
                "hold; give the class and module__... parameters, or pickle the net"
            )
        if self.initialized_ and self.optimizer_ is None:
            raise ValueError("this net was trimmed for prediction; save it before, or pickle it")
        learned = {n: v for n, v in vars(self).items() if _learned(n) and n not in params}
        training = self._content("training", False) if self.initialized_ else None
        return {DATA: 1, "params": params, "learned": learned, "training": training}

    def _from_data(self, state: Mapping[str, Any]) -> None:
        params = dict(state["params"])
        for name, value in params.items():
            if name.partition("__")[0] in (*COMPONENTS, "optimizer", "gramian"):
                _refuse_imports(value, name)
        if str(params["device"]).startswith("cuda") and not torch.cuda.is_available():
            warnings.warn(
                f"device={params['device']!r} is not available here; the net is loaded to 'cpu'",
                DeviceWarning,
                stacklevel=2,
            )
            params["device"] = "cpu"
        options = params.pop("torch_load_kwargs")  # a file has no say in how it is read
        type(self).__init__(self, **params)
        self.__dict__.update({n: v for n, v in state["learned"].items() if _learned(n)})
        if state["training"] is not None:
            self.initialize()
            self.load_params(f_training=io.BytesIO(state["training"]))
        self.torch_load_kwargs = options


def _learned(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_") and name not in BUILT


def _refuse_imports(spec: Any, name: str) -> None:
    """Raise ValueError where a parameter would import a module that is not imported yet."""
    if isinstance(spec, Component):
        spec = spec.get_params(deep=False)
    if isinstance(spec, Mapping):
        spec = list(spec.values())
    if isinstance(spec, list | tuple):
        for member in spec:
            _refuse_imports(member, name)
    elif isinstance(spec, str) and spec.partition(":")[1]:
        module = spec.partition(":")[0]
        if module not in sys.modules:
            raise ValueError(
                f"the saved net has {name}={spec!r}, and {module!r} is not imported; "
                "import it first if you trust it"
            )
