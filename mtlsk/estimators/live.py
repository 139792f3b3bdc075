"""The live objects under a net: built from its parameters, and changed by set_params."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from skorch.setter import _extract_optimizer_param_name_and_group
from torch.optim import LBFGS

from mtlsk.aggregators import AGGREGATORS
from mtlsk.controllers import CONTROLLERS
from mtlsk.descent import split_parameters
from mtlsk.estimators.criteria import with_criteria
from mtlsk.estimators.parameters import build_module
from mtlsk.estimators.predictions import Predictions
from mtlsk.linear_graph import Columns
from mtlsk.optimizers import (
    Muon,
    fused_where_possible,
    hidden_weights,
    muon_groups,
    optimizer_arguments,
    set_option,
)
from mtlsk.regularizers import REGULARIZERS
from mtlsk.taskmap import TaskMap

COMPONENTS = {
    "aggregator": AGGREGATORS,
    "controller": CONTROLLERS,
    "regularizer": REGULARIZERS,
}
KEPT_FOR = {"aggregator", "controller", "gramian", "task_scale", "update_norm"}
"""What the task weights that an engine keeps for some steps depend on."""


class LiveObjects(Predictions):
    """Module, criteria, optimizer and components, built and kept in step with the parameters."""

    _params_to_validate: set[str]

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Leave the net as it was if what is done inside raises."""
        before = dict(vars(self))
        groups = (
            [dict(group) for group in self.optimizer_.param_groups] if self.initialized_ else []
        )
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            if self.initialized_:  # its options are set in place
                for group, old in zip(self.optimizer_.param_groups, groups, strict=True):
                    group.clear()
                    group.update(old)
            raise

    def initialize_module(self) -> Self:
        """Build the module for the shapes of the data."""
        self.module_ = build_module(self)
        return self

    def initialize_criterion(self) -> Self:
        """Give each task its criterion."""
        self.tasks_ = with_criteria(self.tasks_, self.criterion)
        self.criterion_ = [task.criterion for task in self.tasks_]
        self.columns_ = Columns([task.slice for task in self.tasks_], self.tasks_[-1].slice.stop)
        return self

    def initialize_optimizer(self, triggered_directly: Any = None) -> Self:
        """Build the optimizer from the config grammar."""
        args, kwargs = self.get_params_for_optimizer("optimizer", self.get_all_learnable_params())
        if isinstance(self.optimizer, Mapping) and "lr" in self.optimizer:
            kwargs["lr"] = getattr(self, "optimizer__lr", self.optimizer["lr"])
        cls, kwargs = optimizer_arguments(self.optimizer, kwargs)
        # fused kernels take no sparse gradients
        if not any(getattr(m, "sparse", False) for m in self.module_.modules()):
            kwargs = fused_where_possible(cls, kwargs, self._device())
        if issubclass(cls, Muon):
            shared, _ = split_parameters(self.module_, len(self.task_names_))
            args = (muon_groups(args[0], hidden_weights(self.module_, shared)),)
        self.optimizer_ = cls(*args, **kwargs)
        return self

    def _initialize_optimizer(self, reason: Any = None) -> Self:
        super()._initialize_optimizer(reason)
        for pattern in ("optimizer__param_groups__*__*", "optimizer__*", "lr"):
            self._register_virtual_param(pattern, _set_live_option)
        return self

    def _initialize_module(self, reason: Any = None) -> Self:
        with self._concrete_device(), self._seeded(self.seed_):
            super()._initialize_module(reason)
        return self

    def set_params(self, **params: Any) -> Self:
        """Set parameters; on a fitted net those of live components act at once.

        A new aggregator, controller or optimizer drops its predecessor's ``aggregator__*``
        parameters. A wrong parameter raises and changes nothing.
        """
        with self._all_or_nothing():
            self._set_params(params)
        return self

    def _set_params(self, params: dict[str, Any]) -> None:
        owners = (*COMPONENTS, "optimizer")
        for owner in owners:
            if owner in params:
                for stale in [n for n in vars(self) if n.startswith(f"{owner}__")]:
                    delattr(self, stale)
                self._params_to_validate = {
                    n for n in self._params_to_validate if not n.startswith(f"{owner}__")
                }
        mine = {n: v for n, v in params.items() if n.partition("__")[0] in COMPONENTS}
        if "optimizer" in params:
            mine |= {n: v for n, v in params.items() if n.partition("__")[0] == "optimizer"}
        if "callbacks" in params and not self.initialized_:
            mine["callbacks"] = params["callbacks"]  # skorch would build the old ones first
        self.__dict__.update(mine)
        if {n.partition("__")[0] for n in params} & KEPT_FOR:
            self._kept = None  # the task weights of other parameters
        self._params_to_validate = self._params_to_validate | {n for n in mine if "__" in n}
        super().set_params(**{n: v for n, v in params.items() if n not in mine})
        if not self.initialized_:
            return
        for owner, registry in COMPONENTS.items():
            if not any(n.partition("__")[0] == owner for n in mine):
                continue
            old = getattr(self, f"{owner}_")
            new = build_component(registry, getattr(self, owner), self.get_params_for(owner))
            if owner not in params and old is not None:
                # the same component with other parameters keeps its memory
                new.load_state_dict(old.state_dict())
            setattr(self, f"{owner}_", new)
        if "task_scale" in params:
            # groups stay: memories are indexed by them
            groups = self.task_map_.groups
            self.task_map_ = TaskMap(len(self.task_names_), self.task_scale, groups)
        if "criterion" in params:  # a function here, which skorch does not follow
            self.initialize_criterion()
        if "optimizer" in params:
            self._initialize_optimizer()
        self._check_regularizer()

    def _check_regularizer(self) -> None:
        if self.regularizer_ is None:
            return
        self.regularizer_.check(self.module_)
        if isinstance(self.optimizer_, LBFGS):
            raise ValueError(
                "optimizer='LBFGS' takes several steps in one, between which no regularizer comes; "
                "use 'SGD' or another one, or regularizer=None"
            )


def build_component(registry: Any, spec: Any, params: Mapping[str, Any]) -> Any:
    """Return the live component that a spec and parameters name, None for none."""
    kind = registry.kind
    if kind != "aggregator" and (spec is None or str(spec).lower() == "none"):
        if not params:
            return None
        raise ValueError(
            f"{kind}=None has no parameter {next(iter(params))!r}; "
            f"name a {kind} or drop the {kind}__ parameters"
        )
    return registry.build(spec, params)


def _set_live_option(net: LiveObjects, name: str, value: Any) -> None:
    """Set ``lr`` or ``optimizer__*`` on the live optimizer and keep the user's word."""
    group, option = "all", name
    if name != "lr":
        group, option = _extract_optimizer_param_name_and_group("optimizer", name)
    set_option(net.optimizer_, option, value, None if group == "all" else [int(group)])
    setattr(net, name, value)
