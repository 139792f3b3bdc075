"""MultiTaskNet: a skorch net whose step is a multi-task descent step."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
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
from mtlsk.estimators.criteria import with_criteria
from mtlsk.estimators.export import Link, export_module
from mtlsk.estimators.loop import StopTraining
from mtlsk.estimators.parameters import build_module, check_dtype, check_parameters
from mtlsk.estimators.predictions import Predictions
from mtlsk.estimators.printlog import EpochLoss, TaskPrintLog
from mtlsk.estimators.targets import (
    Targets,
    check_classes,
    check_labelled,
    make_tasks,
    resolve_kinds,
)
from mtlsk.estimators.validation import check_features
from mtlsk.estimators.weights import label_weights
from mtlsk.linear_graph import Columns
from mtlsk.modules import HardSharing
from mtlsk.optimizers import (
    Muon,
    fused_where_possible,
    hidden_weights,
    muon_groups,
    optimizer_arguments,
    set_option,
)
from mtlsk.taskmap import TaskMap

KEPT_FOR = {"aggregator", "controller", "gramian", "task_scale", "update_norm"}
"""What the task weights that an engine keeps for some steps depend on."""
COMPONENTS = {"aggregator": AGGREGATORS, "controller": CONTROLLERS}
OF_SKORCH = ("history", "initialized_", "virtual_params_", "kwargs")
"""Names that skorch's constructor takes; "kwargs", which scikit-learn may try, it refuses later."""


class Prepared(NamedTuple):
    """Data as the net takes it: features, labels (NaN: missing) and their weights, or None."""

    X: Any
    labels: NDArray[Any]
    weights: NDArray[Any] | None


class MultiTaskNet(Predictions):
    """One network for tasks of several kinds: numbers and classes side by side.

    Each column of y is a task with its own loss, each a share of the same trunk, and the
    ``aggregator`` decides how their gradients join. :class:`MultiTaskRegressor` and
    :class:`MultiTaskClassifier` are this net with one kind of task; their documentation has the
    parameters not listed here.

    Parameters
    ----------
    tasks : None, str, or dict of column to "regression", "binary", "multiclass", "classification"
        "classification" is binary or multiclass by the number of classes. Columns that are not
        named are a regression where they hold floats and a classification where they hold text
        or booleans; integers must be named.
    criterion : "auto", name, callable, or dict of column to one of these
        "auto" is "squared_error" for a regression and "log_loss" for classes. A name is for the
        kinds of task that have it.
    class_weight : None, "balanced", or dict of column to "balanced" or {class: weight}

    Attributes
    ----------
    tasks_ : list of Task
        Name, kind, classes, criterion and columns of the outputs of each task.
    classes_ : list of arrays, None for a regression
        Absent where there are no classes.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from mtlsk import MultiTaskNet
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> y = pd.DataFrame({"price": X[:, 0], "kind": np.where(X[:, 1] > 0, "flat", "house")})
    >>> net = MultiTaskNet(tasks={"price": "regression", "kind": "binary"}, random_state=0)
    >>> net.set_params(max_epochs=5).fit(X, y).predict(X).columns.tolist()
    ['price', 'kind']
    """

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
        criterion: Any = "auto",
        tasks: Any = None,
        class_weight: Any = None,
        dtype: str = "float32",
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
            if "__" not in name and name not in OF_SKORCH:
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
        self.tasks = tasks
        self.class_weight = class_weight
        self.dtype = dtype

    __repr__ = BaseEstimator.__repr__

    # ---- fitting

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **fit_params: Any) -> Self:
        """Initialize (unless ``warm_start``) and train for ``max_epochs`` epochs.

        Parameters
        ----------
        X : array or DataFrame of shape (n, d)
        y : array, Series or DataFrame of shape (n,) or (n, K)
            NaN means a missing label.
        sample_weight : array of shape (n,) or (n, K), or None
            The loss of a task is the mean over its labelled rows with these weights; rows of
            weight 0 are as if they were not there. How much a task counts is ``task_scale``.

        Raises
        ------
        ValueError
            For wrong input or parameters, before anything is changed.
        DivergenceError
            When a loss or gradient is not finite.
        """
        fresh = not (self.warm_start and self.initialized_)
        with self._all_or_nothing():
            data = self._check(X, y, sample_weight, reset=fresh)
            self._begin(fresh)
        return self._train(data, self.max_epochs, **fit_params)

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None, **fit_params: Any
    ) -> Self:
        """Train for one pass over the data, going on from what was learned before.

        Parameters
        ----------
        X, y, sample_weight : as for :meth:`fit`
            After the first call a task may be without labels.
        classes : array of classes, or list of K arrays (None for a regression), or None
            In the first call: all classes there will be. None takes those that are in y.
        """
        with self._all_or_nothing():
            fresh = not self.initialized_
            data = self._check(X, y, sample_weight, reset=fresh, part=not fresh, classes=classes)
            self._begin(fresh)
        return self._train(data, 1, **fit_params)

    def initialize_for(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Build module, optimizer and components for the shapes of X and y without training."""
        with self._all_or_nothing():
            self._check(X, y, reset=True, classes=classes)
            self.initialize()
        return self

    def _begin(self, fresh: bool) -> None:
        """Build what is trained, or take up a criterion that was set since."""
        if fresh:
            self.initialize()
        else:
            self.initialize_criterion()

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
        self.n_steps_, self._kept, self._schedules = 0, None, None
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

    def _check(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        reset: bool,
        part: bool = False,
        classes: Any = None,
        weighted: bool = True,
    ) -> Prepared:
        """Return the data as the net takes it; ``reset`` makes its tasks those of y.

        ``part`` of a stream may have no label of some task, but must have one. Unless ``weighted``
        classes have no weights.
        """
        if reset:
            check_dtype(self.dtype)
            self.dtype_ = self.dtype  # of module and data until the next fresh fit
        features = check_features(self, X, reset=reset)
        targets = Targets(y, type(self).__name__)
        targets.check_rows(features)
        if reset:
            kinds = resolve_kinds(self.tasks, targets, self._preset)
            self.tasks_ = make_tasks(targets, kinds, classes)
            self.task_names_ = targets.names
            self.one_dimensional_ = targets.one_dimensional
            self.from_frame_ = targets.from_frame
            self.__dict__.pop("classes_", None)
            if any(task.classes is not None for task in self.tasks_):
                found = [task.classes for task in self.tasks_]
                self.classes_ = found[0] if targets.one_dimensional else found
        elif classes is not None:
            check_classes(classes, self.tasks_, targets.one_dimensional)
        labels = targets.of(self.tasks_, self.dtype_)
        check_labelled(labels, self.tasks_, part=part)
        if not weighted:
            return Prepared(features, labels, None)
        labels, weights = label_weights(
            labels, self.tasks_, sample_weight, self.class_weight, part=part
        )
        return Prepared(features, labels, weights)

    def _train(self, data: Prepared, epochs: int, **fit_params: Any) -> Self:
        check_parameters(self)
        X, y, weights = data
        labelled = ~np.isnan(y).all(axis=1)
        if not labelled.all():  # a row without any label teaches nothing
            X, y = X[labelled], y[labelled]
            weights = None if weights is None else weights[labelled]
        weighted = y if weights is None else (y, weights.astype(self.dtype_))
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
            self._labels = labels_of(y)
            self.notify("on_train_begin", X=X, y=y)
            # only now: a callback may have loaded them
            descent.n_steps, descent.kept = self.n_steps_, self._kept
            try:
                with suppress(StopTraining):
                    self.fit_loop(X, weighted, epochs=epochs, **fit_params)
                if not all(bool(p.isfinite().all()) for p in self.module_.parameters()):
                    raise DivergenceError("a parameter is not finite after the last step")
            except DivergenceError as error:
                lr = self.optimizer_.param_groups[0]["lr"]
                raise DivergenceError(
                    f"training diverged: {error} in epoch {len(self.history_)} at lr={lr:g}; "
                    f"try a smaller lr, e.g. lr={lr / 10:g}, and standardise X and y"
                ) from None
            finally:  # an interrupted net keeps what it learned
                self.n_steps_, self._kept = descent.n_steps, descent.kept
                del self._descent, self._labels
                self.__dict__.pop("_again", None)
                self.notify("on_train_end", X=X, y=y)
        return self

    # ---- live objects

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

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Return the datasets for training and validation; a stratified split sees the labels."""
        dataset = self.get_dataset(X, y)
        if not self.train_split:
            return dataset, None
        labels = y[0] if isinstance(y, tuple) else y
        return self.train_split(dataset, labels, **fit_params)

    def _shuffles_by_default(self) -> bool:
        return not {"shuffle", "sampler", "batch_sampler"} & set(
            self.get_params_for("iterator_train")
        )

    def export(self, path: Any) -> None:
        """Write the fitted module to a file that predicts without mtlsk: ``.pt2`` or ``.onnx``.

        It takes rows X (n, d) of the net's dtype, any n, on the CPU, and returns (n, W): of a
        regression what ``predict`` returns, of classes what ``predict_proba`` does, side by side,
        to 1e-5. ``.pt2`` is loaded by ``torch.export.load(path).module()``, ``.onnx`` (extra
        ``mtlsk[onnx]``) has the input ``X`` and the output ``y``. Steps of a Pipeline before the
        net, and transformed targets, are not in it. The names of tasks and features, the columns
        and the classes of each task go along as JSON (``mtlsk.json`` of a .pt2, metadata ``mtlsk``
        of an .onnx).

        Raises
        ------
        ValueError
            For another suffix, or a module that cannot be exported.
        ImportError
            For .onnx without the extra.
        """
        check_is_fitted(self)
        features = [str(name) for name in getattr(self, "feature_names_in_", ())] or None
        link = Link([(task.kind, task.slice) for task in self.tasks_])
        tasks = [
            {"name": task.name, "columns": [columns.start, columns.stop]}
            | ({} if task.classes is None else {"classes": task.classes.tolist()})
            for task, columns in zip(self.tasks_, link.columns, strict=True)
        ]
        facts = {"tasks": tasks, "features": features}
        link_or_none = link if any(task.classes is not None for task in self.tasks_) else None
        export_module(
            self.module_, path, n_features=self.n_features_in_, facts=facts, link=link_or_none
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.initialized_)

    # ---- what the certificates look at

    def task_gramian(self, X: Any, y: Any, *, chunk: int = 4096) -> tuple[Tensor, Tensor]:
        """Return (G, L) of the fitted net over all rows: Gramian (K, K) and losses (K,), float64.

        In evaluation mode, over the shared parameters, exact, without weights of classes; rows are
        taken ``chunk`` at a time.
        """
        check_is_fitted(self)
        features, targets, _ = self._check(X, y, reset=False, weighted=False)
        labelled = torch.from_numpy((~np.isnan(targets)).sum(0))
        shared, _ = split_parameters(self.module_, len(self.task_names_))
        self._set_training(False)
        losses = torch.zeros(len(self.task_names_), dtype=torch.float64, device=self._device())
        jacobian: list[Tensor] = [torch.zeros((), device=p.device) for p in shared]
        rows_of = features if issparse(features) else torch.from_numpy(features)
        arrays = rows_of, torch.from_numpy(targets)
        for Xi, yi in SlicedBatches(*arrays, batch_size=chunk):
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
