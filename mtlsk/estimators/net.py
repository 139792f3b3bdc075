"""MultiTaskNet: a skorch net whose step is a multi-task descent step."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.callbacks import EpochTimer
from skorch.dataset import Dataset
from torch import Tensor

from mtlsk.compatibility import check_engine, losses_only
from mtlsk.component import closest
from mtlsk.controllers import Live
from mtlsk.descent import Descent, DivergenceError, split_parameters
from mtlsk.engines import build_engine, check_directions
from mtlsk.estimators.accelerated import adopt, check_autocast
from mtlsk.estimators.batches import batches
from mtlsk.estimators.export import export_net
from mtlsk.estimators.gradients import gramian_over
from mtlsk.estimators.live import COMPONENTS, LiveObjects, build_component
from mtlsk.estimators.loop import StopTraining, warn_of_closures
from mtlsk.estimators.parameters import check_dtype, check_parameters
from mtlsk.estimators.preparing import Prepared, labels_of, prepare
from mtlsk.estimators.printlog import EpochLoss, TaskPrintLog
from mtlsk.estimators.sklearn_callbacks import CallbackSupportMixin, announced
from mtlsk.modules import HardSharing
from mtlsk.taskmap import TaskMap

OF_SKORCH = ("history", "initialized_", "virtual_params_", "kwargs")
"""Names that skorch's constructor takes; "kwargs", which scikit-learn may try, it refuses later."""


class MultiTaskNet(LiveObjects, CallbackSupportMixin):  # type: ignore[misc]
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
        regularizer: Any = None,
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
        self.regularizer = regularizer
        self.tasks = tasks
        self.class_weight = class_weight
        self.dtype = dtype

    __repr__ = BaseEstimator.__repr__

    def __copy__(self) -> Self:
        """Return a net of the same parts; skorch's own way is by a file."""
        other = object.__new__(type(self))
        other.__dict__.update(vars(self))
        return other

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt(cls, MultiTaskNet)

    # ---- fitting

    @announced
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
            if fresh:
                self.initialize()
        return self._train(data, self.max_epochs, **fit_params)

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None, **fit_params: Any
    ) -> Self:
        """Train for one pass over the data, going on from what was learned before.

        Parameters
        ----------
        X, y, sample_weight : as for :meth:`fit`
            After the first call a task may be without labels. Weights count within a call: those of
            each have the mean 1, and "balanced" is of its own labels.
        classes : array of classes, or list of K arrays (None for a regression), or None
            In the first call: all classes there will be. None takes those that are in y.
        """
        with self._all_or_nothing():
            fresh = not self.initialized_
            data = self._check(X, y, sample_weight, reset=fresh, part=not fresh, classes=classes)
            if fresh:
                self.initialize()
        return self._train(data, 1, **fit_params)

    def initialize_for(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Build module, optimizer and components for the shapes of X and y without training."""
        with self._all_or_nothing():
            self._check(X, y, reset=True, classes=classes)
            self.initialize()
        return self

    def initialize(self) -> Self:
        """Build all live objects afresh; the shapes must be known."""
        if not hasattr(self, "task_names_"):
            raise ValueError(
                f"{type(self).__name__} does not know the shapes of its data yet; "
                "call fit(X, y) or initialize_for(X, y)"
            )
        check_parameters(self)
        check_dtype(self.dtype)
        self.dtype_ = self.dtype
        self.initialized_ = False  # or skorch announces each part as re-initialized
        self.history_ = None  # or skorch clears the one that a failed fit must leave
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        for owner, registry in COMPONENTS.items():
            spec, params = getattr(self, owner), self.get_params_for(owner)
            setattr(self, f"{owner}_", build_component(registry, spec, params))
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
        self._check_regularizer()
        return self

    def _check(self, X: Any, y: Any, sample_weight: Any = None, **options: Any) -> Prepared:
        """Return the data as the net takes it: :func:`prepare`."""
        return prepare(self, X, y, sample_weight, **options)

    def _train(self, data: Prepared, epochs: int, **fit_params: Any) -> Self:
        check_parameters(self)
        check_autocast(self._device())
        warn_of_closures(self.optimizer_)
        X, y, weights = data
        labelled = ~np.isnan(y).all(axis=1)
        if not labelled.all():  # a row without any label teaches nothing
            X, y = X[labelled], y[labelled]
            weights = None if weights is None else weights[labelled]
        weighted = y if weights is None else (y, weights)
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
        export_net(self, path)

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
        data = self._check(X, y, reset=False, weighted=False)
        return gramian_over(self, data.X, data.labels, chunk=chunk)
