"""Torchjd: any weighting of the TorchJD library that works on a Gramian."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from mtlsk.aggregators.base import Aggregator
from mtlsk.component import closest, shown

LOOKS_AT_COORDINATES = "it looks at single coordinates of the gradients"
TWO_BATCHES = "it needs gradients of two independent batches"
NOT_ON_A_GRAMIAN = {
    "ConFIG": "it works on the gradients; take aggregator='ConFIG'",
    "ExcessMTL": LOOKS_AT_COORDINATES,
    "GradDrop": LOOKS_AT_COORDINATES,
    "MoDo": TWO_BATCHES,
    "NashMTL": "it works on the gradients; take aggregator='NashMTL'",
    "SDMGrad": TWO_BATCHES + "; take aggregator='SDMGrad' for a method on one",
    "TrimmedMean": LOOKS_AT_COORDINATES,
}
"""Methods of TorchJD that cannot be had from a Gramian, and why."""


class Torchjd(Aggregator):
    """The weights that a method of TorchJD gives for the Gramian, as they are.

    The regularisations of TorchJD are absolute, so the direction may depend on the common unit of
    the losses (below |J| of about .01 its UPGrad is the mean gradient); where its PCGrad, GradVac
    and Sum sum over the tasks they are not divided by K: ``update_norm="mean"`` evens that out.
    What TorchJD regularises away at unequal gradients or stops at zero ones, our own classes of
    the same names solve.

    GradVac, PCD and CRMOGM remember something from step to step, in buffers, which are saved.
    They do not know which task a row is: they start afresh where the tasks of a step are not those
    of the step before (ours). What an object of yours keeps elsewhere than in buffers is not saved.

    Parameters
    ----------
    method : str or object
        A name, with or without "Weighting" ("UPGrad", "MGDAWeighting"), or a weighting or an
        aggregator of TorchJD, which is copied and never touched.
    options : dict or None
        Keyword arguments of the class that a name means; lists of numbers become tensors.

    Attributes
    ----------
    buffers_ : dict of str to tensor
        What the method remembers, if it does. Memory.
    tasks_ : list of int
        The tasks of the last step of a method that remembers. Memory.

    Raises
    ------
    ImportError
        If TorchJD, or what the method needs of its extras, is not installed.
    ValueError
        For a method that is unknown or not on a Gramian, options its class does not take, and
        where TorchJD fails or gives weights that are not finite.

    **Reference** Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024;
    https://torchjd.org.
    """

    paper = "TorchJD, Quinton and Rey 2024"
    cost = "that of the method"
    stochastic: ClassVar[bool] = True  # some of its methods are
    unit_free: ClassVar[bool] = False

    buffers_: dict[str, Tensor]
    tasks_: list[int]
    _live: tuple[Any, Any, Any] | None = None  # the method and options it was made of, and itself

    def __init__(self, method: Any = "UPGrad", options: Mapping[str, Any] | None = None) -> None:
        self.method = method
        self.options = options

    def check_domains(self) -> Self:
        """Check the domains, and that the method can be made."""
        super().check_domains()
        if self.options is not None and not isinstance(self.options, Mapping):
            raise ValueError(
                f"Torchjd: options={shown(self.options)} is not allowed; options must be a dict of "
                "keyword arguments of the method's class, or None"
            )
        make(self.method, self.options)
        return self

    def task_weights(self, gramian: Tensor | None, losses: Tensor) -> Tensor:
        """Return the weights of the method, shape (K,)."""
        assert gramian is not None
        tasks = self.tasks_of_call(len(gramian))
        weighting = self._weighting(tasks)
        weights = self._asked(weighting, gramian.clone())
        if not bool(weights.isfinite().all()):
            raise ValueError(
                f"TorchJD's {self._name()} gives weights that are not finite, "
                f"{shown(weights.tolist())}; take another method, or our own of its name"
            )
        buffers = {name: b.clone() for name, b in weighting.named_buffers() if b is not None}
        if buffers:
            self.buffers_, self.tasks_ = buffers, tasks
        return weights

    def reset(self) -> Self:
        """Forget everything, the copy of the method too."""
        self._live = None
        super().reset()
        return self

    def _weighting(self, tasks: list[int]) -> Any:
        """Return the live copy of the method, with the memory of these tasks."""
        known = getattr(self, "tasks_", tasks) == tasks
        if self._live is not None and known:
            method, options, weighting = self._live
            if method is self.method and options is self.options:
                return weighting
        weighting = make(self.method, self.options)
        self._live = (self.method, self.options, weighting)
        if known and getattr(self, "buffers_", None):
            with torch.random.fork_rng(devices=[]):  # its buffers are there after a first call
                self._asked(weighting, torch.eye(len(tasks), dtype=torch.float64))
            for name, value in self.buffers_.items():
                path, _, own = name.rpartition(".")
                setattr(weighting.get_submodule(path), own, value.clone())
        return weighting

    def _asked(self, weighting: Any, gramian: Tensor) -> Tensor:
        """Return what the method gives for a Gramian; its errors as one line that names it."""
        try:
            with torch.no_grad():
                weights: Tensor = weighting(gramian).to("cpu", torch.float64)
        except Exception as error:
            self._live = None
            raise ValueError(
                f"TorchJD's {self._name()} fails on a Gramian of {len(gramian)} tasks: "
                f"{shown(str(error))[1:-1]}; take other options, or our own class of its name"
            ) from error
        return weights.clone()

    def _name(self) -> str:
        return self.method if isinstance(self.method, str) else type(self.method).__name__


def make(method: Any, options: Mapping[str, Any] | None) -> Any:
    """Return a weighting of TorchJD that nothing else holds, its memory empty."""
    try:
        library: Any = importlib.import_module("torchjd.aggregation")
    except ImportError as error:
        raise ImportError(
            f"Torchjd needs TorchJD ({error}): pip install 'mtlsk[torchjd]'"
        ) from error
    if not isinstance(method, str):
        if options is not None:
            raise ValueError("Torchjd: options are those of a method given by name, not an object")
        weighting = copy.deepcopy(on_gramian(library, method))
        if hasattr(weighting, "reset"):
            weighting.reset()
        return weighting
    cls = named(library, method)
    arguments = {
        name: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
        for name, value in (options or {}).items()
    }
    try:
        return cls(**copy.deepcopy(arguments))
    except ImportError as error:
        raise ImportError(f"Torchjd(method={method!r}): {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Torchjd(method={method!r}): options={shown(options)} are not understood: {error}"
        ) from error


def named(library: Any, method: str) -> Any:
    """Return the class of weightings that a name means."""
    plain = method.removesuffix("Weighting")
    names = sorted(n.removesuffix("Weighting") for n in library.__all__ if n.endswith("Weighting"))
    allowed = [name for name in names if name and name not in NOT_ON_A_GRAMIAN]
    refuse(plain)
    if plain not in allowed:
        raise ValueError(
            f"Torchjd: unknown method {method!r}{closest(plain, allowed)}; "
            f"allowed: {', '.join(allowed)}, or an object of TorchJD"
        )
    return getattr(library, plain + "Weighting")


def on_gramian(library: Any, method: Any) -> Any:
    """Return the weighting on a Gramian of an object of TorchJD."""
    refuse(type(method).__name__.removesuffix("Weighting"))
    if isinstance(method, library.Weighting):
        return method
    if isinstance(method, library.GramianWeightedAggregator):
        return method.gramian_weighting
    if isinstance(method, library.WeightedAggregator):  # Mean, Sum, Random and Constant
        return on_gramian(library, method.weighting)
    raise ValueError(
        f"Torchjd: method={shown(method)} is neither a name nor a weighting or an aggregator of "
        "TorchJD that works on a Gramian"
    )


def refuse(name: str) -> None:
    """Raise ValueError, saying why, for a method that does not work on a Gramian."""
    if name.lstrip("_") in NOT_ON_A_GRAMIAN:
        raise ValueError(
            f"Torchjd: TorchJD's {name} does not work on a Gramian: "
            f"{NOT_ON_A_GRAMIAN[name.lstrip('_')]}"
        )
