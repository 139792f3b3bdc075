"""The parameters of a net checked, and its module built from them."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mtlsk.component import closest, shown
from mtlsk.descent import UPDATE_NORMS
from mtlsk.domains import Interval
from mtlsk.engines import build_engine
from mtlsk.modules import ACTIVATIONS, HardSharing


def is_whole(value: Any, least: int) -> bool:
    """Say whether a value is an integer (booleans are not) from ``least`` on."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(value >= least)


def check_dtype(dtype: Any) -> None:
    """Raise ValueError for a dtype that a net cannot train in."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype={shown(dtype)} is not allowed; use 'float32' or 'float64'")


def check_parameters(net: Any) -> None:
    """Raise ValueError, in one line, for a parameter of the net itself that is not allowed."""
    if net.update_norm not in UPDATE_NORMS:
        raise ValueError(f"update_norm={net.update_norm!r} is not allowed; use 'native' or 'mean'")
    for name, least in (("max_epochs", 0), ("batch_size", 1)):
        value = getattr(net, name)
        if not is_whole(value, least) and not (name == "batch_size" and value == -1):
            raise ValueError(f"{name}={value!r} is not allowed; use an integer >= {least}")
    if net.lr not in Interval(0.0, math.inf):
        raise ValueError(f"lr={net.lr!r} is not allowed; the learning rate is a number >= 0")
    sizes = net.hidden_layer_sizes
    if isinstance(sizes, str) or not isinstance(sizes, Sequence | np.ndarray):
        raise ValueError(
            f"hidden_layer_sizes={shown(sizes)} is not allowed; use a sequence, e.g. "
            f"({sizes if is_whole(sizes, 1) else 64},)"
        )
    if not all(is_whole(size, 1) for size in sizes):
        raise ValueError(
            f"hidden_layer_sizes={shown(sizes)} is not allowed; use integers >= 1, or ()"
        )
    if not (isinstance(net.activation, str) and net.activation in ACTIVATIONS):
        raise ValueError(
            f"activation={net.activation!r} is not allowed; use one of {', '.join(ACTIVATIONS)}"
        )
    if net.train_split is not None and not callable(net.train_split):
        raise ValueError(
            f"train_split={net.train_split!r} is not allowed; use None or a split such as "
            "skorch.dataset.ValidSplit(5)"
        )
    if not callable(net.module):  # a module instance is
        raise ValueError(
            f"module={shown(net.module)} is not allowed; use a torch module class or instance"
        )
    if net.module is not HardSharing:
        for name, default in (("hidden_layer_sizes", (64, 64)), ("activation", "relu")):
            value = getattr(net, name)
            if (tuple(value) if isinstance(value, list) else value) != default:
                raise ValueError(
                    f"{name} belongs to the default module, HardSharing; give parameters of "
                    f"another module as module__{name}=..."
                )
    build_engine(net.gramian)
    net._device()


def build_module(net: Any) -> torch.nn.Module:
    """Return the net's module; a class that takes ``n_features`` and ``n_outputs`` gets them.

    A module instance is copied: the user's own is never trained.
    """
    kwargs = net.get_params_for("module")
    dtype = getattr(torch, net.dtype_)
    if isinstance(net.module, torch.nn.Module) and not kwargs:
        return copy.deepcopy(net.module).to(dtype)
    cls: Any = type(net.module) if isinstance(net.module, torch.nn.Module) else net.module
    takes = inspect.signature(cls).parameters
    shapes = {"n_features": net.n_features_in_, "n_outputs": net.tasks_[-1].slice.stop}
    kwargs = {k: v for k, v in shapes.items() if k in takes} | kwargs
    if cls is HardSharing:
        own = {"hidden_layer_sizes": net.hidden_layer_sizes, "activation": net.activation}
        kwargs = own | kwargs
    for name in kwargs:
        variadic = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
        if name not in takes and not variadic:
            raise ValueError(
                f"module {cls.__name__} has no parameter {name!r}{closest(name, takes)}; "
                f"valid parameters: {', '.join(takes)}"
            )
    built: torch.nn.Module
    try:
        built = cls(**kwargs)
    except TypeError as error:
        needs = ", ".join(f"module__{name}" for name in takes)
        raise ValueError(f"module {error}; its parameters are {needs}") from error
    return built.to(dtype)
