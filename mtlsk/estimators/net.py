"""MultiTaskNet: a skorch net whose step is a multi-task descent step."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.callbacks import EpochTimer
from skorch.dataset import Dataset
from skorch.setter import _extract_optimizer_param_name_and_group
from torch import Tensor

from mtlsk.aggregators import AGGREGATORS
from mtlsk.compatibility import check_engine, losses_only
from mtlsk.component import closest
from mtlsk.controllers import CONTROLLERS, Live
from mtlsk.descent import Descent, DivergenceError, split_parameters
from mtlsk.engines import build_engine, check_directions
from mtlsk.engines.exact import AutogradGradients, gramian_of
from mtlsk.estimators.batches import SlicedBatches, batches
from mtlsk.estimators.loop import StopTraining, TrainingLoop
from mtlsk.estimators.parameters import build_module, check_parameters
from mtlsk.estimators.printlog import EpochLoss, TaskPrintLog
from mtlsk.estimators.validation import check_features, check_targets, refuse_weights
from mtlsk.linear_graph import Columns
from mtlsk.modules import CRITERIA, HardSharing, Task
from mtlsk.optimizers import (
    Muon,
    fused_where_possible,
    hidden_weights,
    muon_groups,
    optimizer_arguments,
    set_option,
)
from mtlsk.taskmap import TaskMap

CPU = torch.device("cpu")
COMPONENTS = {"aggregator": AGGREGATORS, "controller": CONTROLLERS}


class MultiTaskNet(TrainingLoop):
    """A skorch net with an aggregator and a controller; see :class:`MultiTaskRegressor`."""

    history_: Any
    device: Any
    _params_to_validate: set[str]
    prefixes_ = [*NeuralNet.prefixes_, *COMPONENTS]

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        aggregator: Any = "LinearScalarization",
        controller: Any = None,
        optimizer: Any = "AdamW",
        lr: float = 3e-3,
        max_epochs: int = 100,
        batch_size: int = 64,
        activation: str = "relu",
        task_scale: Sequence[float] | None = None,
        update_norm: str = "native",
        random_state: Any = None,
        device: str = "cpu",
        verbose: int = 0,
        gramian: Any = "auto",
        module: Any = HardSharing,
        criterion: Any = "squared_error",
        train_split: Any = None,
        callbacks: Any = None,
        warm_start: bool = False,
        iterator_train: Any = batches,
        iterator_valid: Any = batches,
        dataset: Any = Dataset,
        predict_nonlinearity: Any = "auto",
        compile: bool = False,
        use_caching: Any = "auto",
        torch_load_kwargs: Any = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs:
            if "__" not in name and name not in ("history", "initialized_", "virtual_params_"):
                own = set(inspect.signature(type(self).__init__).parameters)
                valid = sorted(own - {"self", "kwargs"})
                raise TypeError(
                    f"{type(self).__name__} has no parameter {name!r}{closest(name, valid)}; "
                    f"valid parameters: {', '.join(valid)}"
                )
        super().__init__(
            module,
            criterion,
            optimizer=optimizer,
            lr=lr,
            max_epochs=max_epochs,
            batch_size=batch_size,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            dataset=dataset,
            train_split=train_split,
            callbacks=callbacks,
            predict_nonlinearity=predict_nonlinearity,
            warm_start=warm_start,
            verbose=verbose,
            device=device,
            compile=compile,
            use_caching=use_caching,
            torch_load_kwargs=torch_load_kwargs,
            **kwargs,
        )
        self.hidden_layer_sizes = hidden_layer_sizes
        self.aggregator = aggregator
        self.controller = controller
        self.activation = activation
        self.task_scale = task_scale
        self.update_norm = update_norm
        self.random_state = random_state
        self.gramian = gramian

    __repr__ = BaseEstimator.__repr__

    # ---- fitting

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Initialize (unless ``warm_start``) and train for ``max_epochs`` epochs.

        Parameters
        ----------
        X : array or DataFrame of shape (n, d)
        y : array, Series or DataFrame of shape (n,) or (n, K)
            NaN means a missing label.

        Raises
        ------
        ValueError
            For wrong input or parameters, before anything is changed.
        DivergenceError
            When a loss or gradient is not finite.
        """
        fresh = not (self.warm_start and self.initialized_)
        refuse_weights(fit_params)
        with self._all_or_nothing():
            features, targets = self._check(X, y, reset=fresh)
            if fresh:
                self.initialize()
        return self._train(features, targets, self.max_epochs, **fit_params)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, **fit_params: Any) -> Self:
        """Train for one pass over the data, going on from what was learned before."""
        refuse_weights(fit_params)
        with self._all_or_nothing():
            features, targets = self._check(X, y, reset=not self.initialized_)
            if not self.initialized_:
                self.initialize()
        return self._train(features, targets, 1, **fit_params)

    def initialize_for(self, X: Any, y: Any) -> Self:
        """Build module, optimizer and components for the shapes of X and y without training."""
        with self._all_or_nothing():
            self._check(X, y, reset=True)
            self.initialize()
        return self

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

    def initialize(self) -> Self:
        """Build all live objects afresh; the shapes must be known."""
        if not hasattr(self, "task_names_"):
            raise ValueError(
                f"{type(self).__name__} does not know the shapes of its data yet; "
                "call fit(X, y) or initialize_for(X, y)"
            )
        check_parameters(self)
        self.initialized_ = False  # or skorch announces each part as re-initialized
        self.history_ = None  # or skorch clears the one that a failed fit must leave
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        for owner, registry in COMPONENTS.items():
            spec, params = getattr(self, owner), self.get_params_for(owner)
            setattr(self, f"{owner}_", self._build(registry, spec, params))
        self.task_map_ = TaskMap(len(self.task_names_), self.task_scale)
        self.n_steps_ = 0
        with self._seeded(self.seed_):
            super().initialize()
        shared, own = split_parameters(self.module_, len(self.task_names_))
        if self.controller_ is not None:
            names = tuple(self.task_names_)
            live = Live(self.optimizer_, self.aggregator_, self.task_map_, names, tuple(shared))
            self.controller_.bind(live)
        engine = build_engine(self.gramian)
        blind = losses_only(self.aggregator_, self.update_norm, self.controller_)
        if not blind:
            check_engine(engine, self.aggregator_, own, self.controller_)
        check_directions(engine, self.optimizer_, blind)
        return self

    @staticmethod
    def _build(registry: Any, spec: Any, params: Mapping[str, Any]) -> Any:
        if spec is None or (isinstance(spec, str) and spec.lower() == "none"):
            if registry.kind == "controller" and not params:
                return None
            if registry.kind == "controller":
                raise ValueError(
                    f"controller=None has no parameter {next(iter(params))!r}; "
                    "name a controller or drop the controller__ parameters"
                )
        return registry.build(spec, params)

    def _check(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        features = check_features(self, X, reset=reset)
        targets, one_dimensional, names = check_targets(features, y)
        if reset:
            self.task_names_ = names
            self.one_dimensional_ = one_dimensional
        elif len(names) != len(self.task_names_):
            raise ValueError(
                f"y has {len(names)} tasks, but {type(self).__name__} was fitted with "
                f"{len(self.task_names_)}: {', '.join(self.task_names_)}"
            )
        return features, targets

    def _train(self, X: NDArray[Any], y: NDArray[Any], epochs: int, **fit_params: Any) -> Self:
        check_parameters(self)
        labelled = ~np.isnan(y).all(axis=1)
        if not labelled.all():  # a row without any label teaches nothing
            X, y = X[labelled], y[labelled]
        with self._seeded(self.seed_):
            descent = self._descent = Descent(
                self.module_,
                self.optimizer_,
                self.aggregator_,
                self.controller_,
                n_tasks=len(self.task_names_),
                gramian=build_engine(self.gramian),
                task_map=self.task_map_,
                update_norm=self.update_norm,
                task_names=self.task_names_,
            )
            descent.n_steps = self.n_steps_
            self._labels = labels_of(y)
            self.notify("on_train_begin", X=X, y=y)
            try:
                with suppress(StopTraining):
                    self.fit_loop(X, y, epochs=epochs, **fit_params)
                if not all(bool(p.isfinite().all()) for p in self.module_.parameters()):
                    raise DivergenceError("a parameter is not finite after the last step")
            except DivergenceError as error:
                lr = self.optimizer_.param_groups[0]["lr"]
                raise DivergenceError(
                    f"training diverged: {error} in epoch {len(self.history_)} at lr={lr:g}; "
                    f"try a smaller lr, e.g. lr={lr / 10:g}, and standardise X and y"
                ) from None
            finally:  # an interrupted net keeps what it learned
                self.n_steps_ = descent.n_steps
                del self._descent, self._labels
                self.__dict__.pop("_again", None)
                self.notify("on_train_end", X=X, y=y)
        return self

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Run with torch's generators seeded, the caller's left as they were."""
        device = self._device()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    # ---- live objects

    def initialize_module(self) -> Self:
        """Build the module for the shapes of the data."""
        self.module_ = build_module(self)
        return self

    def initialize_criterion(self) -> Self:
        """Resolve one criterion for all tasks into the tasks' records."""
        criterion = CRITERIA.get(self.criterion) if isinstance(self.criterion, str) else None
        criterion = criterion or (self.criterion if callable(self.criterion) else None)
        if criterion is None:
            raise ValueError(
                f"criterion={self.criterion!r} is not allowed; use one of {', '.join(CRITERIA)}, "
                "or a callable (prediction (B, 1), label (B,)) -> loss of each row (B,)"
            )
        if isinstance(criterion, type):
            raise ValueError(
                f"criterion={criterion.__name__} is a class; use one of {', '.join(CRITERIA)}, or "
                "a function (prediction (B, 1), label (B,)) -> loss of each row (B,)"
            )
        self.criterion_ = criterion
        self.tasks_ = [
            Task(name, "regression", criterion, slice(k, k + 1))
            for k, name in enumerate(self.task_names_)
        ]
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
        self.__dict__.update(mine)
        self._params_to_validate = self._params_to_validate | {n for n in mine if "__" in n}
        super().set_params(**{n: v for n, v in params.items() if n not in mine})
        if not self.initialized_:
            return
        for owner, registry in COMPONENTS.items():
            if not any(n.partition("__")[0] == owner for n in mine):
                continue
            old = getattr(self, f"{owner}_")
            new = self._build(registry, getattr(self, owner), self.get_params_for(owner))
            if owner not in params and old is not None:
                # the same component with other parameters keeps its memory
                new.load_state_dict(old.state_dict())
            setattr(self, f"{owner}_", new)
        if "task_scale" in params:
            # groups stay: memories are indexed by them
            groups = self.task_map_.groups
            self.task_map_ = TaskMap(len(self.task_names_), self.task_scale, groups)
        if "optimizer" in params:
            self._initialize_optimizer()

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", EpochLoss(name="train_loss", on_train=True)),
            ("valid_loss", EpochLoss(name="valid_loss")),
            ("print_log", TaskPrintLog()),
        ]

    def _get_param_names(self) -> list[str]:
        return [name for name in super()._get_param_names() if not name.startswith("_")]

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return the loader; training shuffles unless ``iterator_train__shuffle`` is False."""
        if training and self.iterator_train is batches and self._shuffles_by_default():
            size = len(dataset) if self.batch_size == -1 else self.batch_size
            options = {"batch_size": size, **self.get_params_for("iterator_train")}
            missing = getattr(self, "_labels", "all") != "all"
            device = self._device()
            if device.type == "cuda":
                options["device"] = device
            return batches(dataset, **options, shuffle=True, count_labels=missing)
        return super().get_iterator(dataset, training=training)

    def _shuffles_by_default(self) -> bool:
        return not {"shuffle", "sampler", "batch_sampler"} & set(
            self.get_params_for("iterator_train")
        )

    # ---- devices

    def _device(self) -> torch.device:
        """Return the torch device of ``device``; "auto" is CUDA where there is one."""
        if self.device == "cpu":
            return CPU
        cuda = torch.cuda.is_available()
        if self.device == "auto":
            return torch.device("cuda" if cuda else "cpu")
        try:
            device = torch.device(self.device or "cpu")
        except RuntimeError:
            device = None
        if device is None or (device.type == "cuda" and not cuda):
            raise ValueError(
                f"device={self.device!r} is not available here; use 'cpu' or 'auto'"
                + (", or e.g. 'cuda'" if cuda else "")
            )
        return device

    @contextmanager
    def _concrete_device(self) -> Iterator[None]:
        """Let skorch see a device that torch knows while ``device`` is "auto"."""
        word: str = self.device
        self.device: str = str(self._device())
        try:
            yield
        finally:
            self.device = word

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Return the module's output for a batch."""
        if isinstance(x, Tensor) and not fit_params and x.device.type == self._device().type:
            return self.module_(x)
        with self._concrete_device():
            return super().infer(x, **fit_params)

    def load_params(self, *args: Any, **kwargs: Any) -> None:
        """Load parameters as in skorch; the shapes must be known (``initialize_for``)."""
        checkpoint = kwargs.get("checkpoint")
        if checkpoint is not None:  # a criterion here is a function, without parameters
            kwargs["checkpoint"] = copy.copy(checkpoint)
            kwargs["checkpoint"].f_criterion = None
        with self._concrete_device():
            super().load_params(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        word: str = state["device"]
        if word == "auto":
            state = {**state, "device": "cuda" if torch.cuda.is_available() else "cpu"}
        super().__setstate__(state)
        if word == "auto":
            self.device = word

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.initialized_)

    # ---- what the certificates look at

    def task_gramian(self, X: Any, y: Any, *, chunk: int = 4096) -> tuple[Tensor, Tensor]:
        """Return (G, L) of the fitted net over all rows: Gramian (K, K) and losses (K,), float64.

        In evaluation mode, over the shared parameters, exact; rows are taken ``chunk`` at a time.
        """
        check_is_fitted(self)
        return self._gramian_of(*self._check(X, y, reset=False), chunk=chunk)

    def _gramian_of(
        self, features: NDArray[Any], targets: NDArray[Any], *, chunk: int = 4096
    ) -> tuple[Tensor, Tensor]:
        """Return (G, L) over rows as a fit holds them; 0 for a task without any label."""
        labelled = torch.from_numpy((~np.isnan(targets)).sum(0)).clamp_min(1)
        shared, _ = split_parameters(self.module_, len(self.task_names_))
        self._set_training(False)
        losses = torch.zeros(len(self.task_names_), dtype=torch.float64, device=self._device())
        jacobian: list[Tensor] = [torch.zeros((), device=p.device) for p in shared]
        rows_of_X = features if issparse(features) else torch.from_numpy(features)
        for Xi, yi in SlicedBatches(rows_of_X, torch.from_numpy(targets), batch_size=chunk):
            part, rows = self.task_losses(self.infer(Xi), yi, Xi)
            part = part * (rows.cpu() / labelled).to(part)
            of_part = AutogradGradients(part, shared).jacobian
            jacobian = [a + b for a, b in zip(jacobian, of_part, strict=True)]
            losses += part.detach()
        return gramian_of(jacobian, losses).cpu(), losses.cpu()


def labels_of(y: NDArray[Any]) -> str:
    """Say which labels (n, K) are there: "all", "one" a row at most (of several), or "some"."""
    there = ~np.isnan(y)
    if there.all():
        return "all"
    return "one" if there.sum(axis=1).max() <= 1 else "some"


def _set_live_option(net: MultiTaskNet, name: str, value: Any) -> None:
    """Set ``lr`` or ``optimizer__*`` on the live optimizer and keep the user's word."""
    group, option = "all", name
    if name != "lr":
        group, option = _extract_optimizer_param_name_and_group("optimizer", name)
    set_option(net.optimizer_, option, value, None if group == "all" else [int(group)])
    setattr(net, name, value)
