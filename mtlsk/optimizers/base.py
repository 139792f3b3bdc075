"""Optimizers in the config grammar, and one word, momentum, for all that have one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch

from mtlsk.component import Registry, closest, parameter_names

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry(
    "optimizer", "mtlsk.optimizers", torch.optim.Optimizer, fallback="torch.optim"
)


def optimizer_arguments(
    spec: Any, params: Mapping[str, Any]
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return class and keyword arguments of an optimizer; ``momentum`` is ``betas[0]`` for Adams.

    Raises
    ------
    ValueError
        For a name or a parameter that does not exist.
    """
    if isinstance(spec, torch.optim.Optimizer):
        raise ValueError(
            f"optimizer={type(spec).__name__}(...) is an instance bound to other parameters; give "
            f"its name, e.g. optimizer={type(spec).__name__!r}, and optimizer__... parameters"
        )
    cls, own = OPTIMIZERS.resolve(spec)
    merged = {**own, **params}
    valid: set[str] = set()
    for base in cls.__mro__:  # ours hand *args, **kwargs on to torch's
        if base is torch.optim.Optimizer:
            break
        if issubclass(base, torch.optim.Optimizer) and "__init__" in vars(base):
            valid |= set(parameter_names(base)) - {"params"}
            kinds = {p.kind for p in inspect.signature(base.__init__).parameters.values()}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break
    if "momentum" in merged and "momentum" not in valid and "betas" in valid:
        beta1, default = merged.pop("momentum"), merged.get("betas", (0.9, 0.999))
        merged["betas"] = (beta1, *default[1:])
    valid |= {"param_groups"}  # skorch's patterns of parameter names
    for name in merged:
        if name not in valid:
            raise ValueError(
                f"optimizer {cls.__name__} has no parameter {name!r}{closest(name, valid)}; "
                f"valid parameters: {', '.join(sorted(valid))}"
            )
    return cls, merged


FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)
"""Optimizers of which torch has a fused kernel on the CPU and on CUDA."""


def fused_where_possible(
    cls: type[torch.optim.Optimizer], arguments: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """Return the arguments with ``fused=True`` where torch has it and the user says nothing."""
    said = {"fused", "foreach", "capturable", "differentiable"} & set(arguments)
    fits = issubclass(cls, FUSED) and device.type in ("cpu", "cuda") and not said
    return {**arguments, "fused": True} if fits else dict(arguments)


def momentum_of(optimizer: torch.optim.Optimizer) -> Literal["betas", "momentum"] | None:
    """Say where an optimizer keeps its first momentum: ``betas[0]``, ``momentum`` or nowhere."""
    defaults = optimizer.defaults  # Muon has both: betas are of its AdamW part
    return "momentum" if "momentum" in defaults else "betas" if "betas" in defaults else None


def set_option(
    optimizer: torch.optim.Optimizer, name: str, value: Any, groups: Iterable[int] | None = None
) -> None:
    """Set an option of the live optimizer; ``momentum`` is ``betas[0]`` for the Adam family.

    An optimizer of several kinds of groups (Muon) says itself, by ``option_places``, where an
    option of the whole lives; with ``groups`` each is set as it is.

    Raises
    ------
    ValueError
        If the optimizer has no such option.
    """
    places = getattr(optimizer, "option_places", None)
    if groups is None and places is not None:
        for group, key in places(name):
            group[key] = value
        return
    chosen = range(len(optimizer.param_groups)) if groups is None else groups
    for index in chosen:
        group = optimizer.param_groups[index]
        if name in group and name != "params":
            group[name] = value
        elif name == "momentum" and "betas" in group:
            group["betas"] = (value, *group["betas"][1:])
        else:
            valid = sorted(set(group) - {"params"})
            raise ValueError(
                f"optimizer {type(optimizer).__name__} has no option {name!r}"
                f"{closest(name, valid)}; valid options: {', '.join(valid)}"
            )
