"""ScalarizationFront: many linear scalarizations of one small net, trained together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from mtlsk.aggregators import AGGREGATORS
from mtlsk.component import shown
from mtlsk.descent import DivergenceError
from mtlsk.domains import Interval
from mtlsk.estimators.parameters import is_whole
from mtlsk.estimators.regressor import MultiTaskRegressor
from mtlsk.estimators.targets import Targets, check_labelled
from mtlsk.estimators.together import fit_together, why_apart
from mtlsk.estimators.validation import check_features
from mtlsk.simplex import spread_on_simplex

Array = NDArray[np.float64]


class ScalarizationFront(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A front of trade-offs between tasks: P nets, each trained on its own weighted sum of losses.

    Member p minimises sum_k w_pk L_k. All P nets start from the same initial weights, see the same
    batches and are trained in one run of batched matrix products, which for small nets is several
    times faster than one by one; up to rounding (which long trainings at a large ``lr`` multiply)
    each is the net that ``fit`` of the estimator with
    ``aggregator={"name": "LinearScalarization", "weights": w_p}`` gives. Members are independent:
    one that diverges leaves the others as they are.

    Parameters
    ----------
    estimator : MultiTaskRegressor or None
        What every member is but for its weights; None is ``MultiTaskRegressor()``. It must be the
        default module without convolutions, trained by linear scalarization with an optimizer
        that works number by number (SGD and the Adam family), without controller, callbacks and
        ``train_split``. It prints nothing.
    weights : int or array of shape (P, K)
        Non-negative weights of the tasks, a row a member, taken as they are. An integer is P:
        for two tasks evenly spaced weights, for more the equal ones and then P - 1 draws that are
        uniform on the simplex.
    lr : float, sequence of P floats, or None
        Learning rate, of all members or of each; None is the estimator's.
    random_state : int, RandomState or None
        Seeds the draw of the weights, and the nets where the estimator has no ``random_state`` of
        its own; None is the estimator's.

    Attributes
    ----------
    estimators_ : list of P
        The fitted MultiTaskRegressors, each to be used on its own; None for one that diverged.
    weights_ : (P, K)
    losses_ : (P, K)
        The mean loss of each task over the validation data where ``fit`` was given any, else over
        the training data, after training; without ``task_scale``. NaN for a diverged member.
    diverged_ : (P,) bool
    front_ : DataFrame
        The members whose losses no other member's dominate, a row each: index the member's number,
        columns ``weight NAME`` and ``loss NAME`` of each task, and ``lr``.
    best_index_, best_estimator_ : int and MultiTaskRegressor
        The member with the smallest worst loss, max_k L_k.
    task_names_ : list of str
    n_features_in_ : int

    Raises
    ------
    ValueError
        For wrong input or parameters, in one line, before anything is changed.
    DivergenceError
        When every member diverges; where only some do, a ConvergenceWarning names them.

    Examples
    --------
    >>> from mtlsk import MultiTaskRegressor, ScalarizationFront
    >>> from mtlsk.datasets import make_arm
    >>> arm = make_arm(200, random_state=0)
    >>> net = MultiTaskRegressor((16,), max_epochs=2, random_state=0)
    >>> front = ScalarizationFront(net, weights=8).fit(arm.data, arm.target)
    >>> front.predict(arm.data, preference=[1, 0, 0, 0, 0, 0, 0]).shape
    (200, 7)
    """

    def __init__(
        self,
        estimator: Any = None,
        weights: int | ArrayLike = 16,
        *,
        lr: float | Sequence[float] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.weights = weights
        self.lr = lr
        self.random_state = random_state

    def fit(self, X: Any, y: Any, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Train all members.

        Parameters
        ----------
        X : array or DataFrame of shape (n, d)
        y : array, Series or DataFrame of shape (n,) or (n, K)
            NaN means a missing label.
        X_val, y_val : like X and y, or None
            Data to take ``losses_``, and with them the front, from; nobody is trained on them.
        """
        net = self._net()
        if self.lr is not None and np.ndim(self.lr) == 0:
            net.lr = self.lr
        net.initialize_for(X, y)
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val come together: give both or neither")
        held_out = (X, y) if X_val is None else (X_val, y_val)
        features = check_features(net, held_out[0], reset=False)
        given = Targets(held_out[1])
        if len(given) != len(net.tasks_):
            raise ValueError(f"y_val has {len(given)} tasks, but y has {len(net.tasks_)}")
        given.check_rows(features)
        targets = given.of(net.tasks_, net.dtype)
        check_labelled(targets, net.tasks_)
        weights = self._weights(net)
        lrs = self._lrs(len(weights))
        members = fit_together(net, weights, lrs, X, y)
        nets = [m if isinstance(m, MultiTaskRegressor) else None for m in members]
        failed = {p: str(m) for p, m in enumerate(members) if isinstance(m, DivergenceError)}
        self._report(failed, len(members))
        losses = np.full(weights.shape, np.nan)
        for p, member in enumerate(nets):
            if member is not None:
                losses[p] = mean_losses(member, features, targets)
        self.estimators_ = nets
        self.weights_, self.losses_ = weights, losses
        self.diverged_ = np.array([member is None for member in nets])
        self.task_names_ = net.task_names_
        self.n_features_in_ = net.n_features_in_
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(net, "feature_names_in_"):
            self.feature_names_in_ = net.feature_names_in_
        self.best_index_ = int(np.nanargmin(np.where(self.diverged_, np.nan, losses.max(axis=1))))
        self.front_ = self._front(lrs)
        return self

    def choose(self, preference: ArrayLike | None = None) -> int:
        """Return the number of the member for a preference.

        Parameters
        ----------
        preference : K non-negative numbers, or None
            How much each task matters: the member whose weights are nearest, both divided by their
            sum, in the Euclidean norm. None is ``best_index_``.
        """
        check_is_fitted(self)
        if preference is None:
            return self.best_index_
        wanted = as_weights(preference, "preference", 1)
        if len(wanted) != self.weights_.shape[1]:
            raise ValueError(
                f"preference has {len(wanted)} entries for {self.weights_.shape[1]} tasks; "
                "give one a task, or None"
            )
        shares = self.weights_ / self.weights_.sum(axis=1, keepdims=True)
        distance = np.linalg.norm(shares - wanted / wanted.sum(), axis=1)
        return int(np.where(self.diverged_, np.inf, distance).argmin())

    @property
    def best_estimator_(self) -> MultiTaskRegressor:
        """The member with the smallest worst loss."""
        return self._member(None)

    def _member(self, preference: ArrayLike | None) -> MultiTaskRegressor:
        member = self.estimators_[self.choose(preference)]
        assert member is not None
        return member

    def predict(self, X: Any, preference: ArrayLike | None = None) -> Array:
        """Return the predictions (n, K) of the member for a preference, see :meth:`choose`.

        Of shape (n,) where y was one-dimensional.
        """
        check_is_fitted(self)
        prediction: Array = self._member(preference).predict(X)
        return prediction

    def score(
        self, X: Any, y: Any, sample_weight: None = None, preference: ArrayLike | None = None
    ) -> float:
        """Return the mean over the tasks of R^2 of the member for a preference."""
        check_is_fitted(self)
        return self._member(preference).score(X, y, sample_weight)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    # ---- parameters

    def _net(self) -> MultiTaskRegressor:
        """Return a fresh copy of the estimator, if its members can be trained together."""
        net = MultiTaskRegressor() if self.estimator is None else clone(self.estimator)
        reason = why_apart(net)
        if reason is not None:
            inside = any(hasattr(net, name) for name in ("steps", "regressor", "transformer"))
            raise ValueError(
                f"estimator: cannot train members together with {reason}; "
                + (
                    "put ScalarizationFront inside it, in the net's place"
                    if inside
                    else "fit such members one by one, with aggregator={'name': "
                    "'LinearScalarization', 'weights': w} for each w"
                )
            )
        own = AGGREGATORS.resolve(net.aggregator)[1].get("weights")
        if getattr(net, "aggregator__weights", own) is not None:
            raise ValueError("estimator: its aggregator has weights; give weights to the front")
        named = isinstance(net.optimizer, dict) and "lr" in net.optimizer
        if self.lr is not None and (named or hasattr(net, "optimizer__lr")):
            raise ValueError("estimator: its optimizer has an lr; give lr once, to the front")
        if net.random_state is None:
            net.random_state = self.random_state
        return net

    def _weights(self, net: MultiTaskRegressor) -> Array:
        """Return the weights (P, K), drawn where only P is given."""
        n_tasks = len(net.task_names_)
        if isinstance(self.weights, str) or not hasattr(self.weights, "__len__"):
            if not is_whole(self.weights, 1):
                raise ValueError(
                    f"weights={shown(self.weights)} is not allowed; use a number of members >= 1, "
                    "or an array with a row of task weights a member"
                )
            seed = net.seed_ if self.random_state is None else self.random_state
            return spread_on_simplex(int(self.weights), n_tasks, check_random_state(seed))  # type: ignore[arg-type]
        weights = as_weights(self.weights, "weights", 2)
        if weights.shape[1] != n_tasks:
            raise ValueError(
                f"weights has {weights.shape[1]} columns for {n_tasks} tasks; give one a task"
            )
        return weights

    def _lrs(self, n_members: int) -> list[float] | None:
        """Return the learning rate of each member, None where all have the same."""
        if self.lr is None or np.ndim(self.lr) == 0:
            return None
        if np.shape(self.lr) != (n_members,):
            raise ValueError(
                f"lr has shape {np.shape(self.lr)} for {n_members} members; give one number, or "
                "one a member"
            )
        lrs = np.asarray(self.lr).tolist()
        for lr in lrs:
            if lr not in Interval(0.0, math.inf):
                raise ValueError(f"lr={lr!r} is not allowed; a learning rate is a number >= 0")
        return [float(lr) for lr in lrs]

    # ---- results

    @staticmethod
    def _report(failed: dict[int, str], n_members: int) -> None:
        if not failed:
            return
        first = next(iter(failed.values()))
        if len(failed) == n_members:
            raise DivergenceError(f"all {n_members} members diverged; the first: {first}")
        warnings.warn(
            f"{len(failed)} of {n_members} members diverged and are not on the front: "
            f"{', '.join(map(str, failed))}; the first: {first}",
            ConvergenceWarning,
            stacklevel=3,
        )

    def _front(self, lrs: list[float] | None) -> pd.DataFrame:
        """Return the table of the members that no other dominates."""
        names = self.task_names_
        if lrs is None:
            lrs = [self.best_estimator_.optimizer_.param_groups[0]["lr"]] * len(self.weights_)
        table = pd.DataFrame(
            np.column_stack([self.weights_, self.losses_, lrs]),
            columns=[*(f"weight {n}" for n in names), *(f"loss {n}" for n in names), "lr"],
        )
        table.index.name = "member"
        return table[undominated(self.losses_)]


def as_weights(values: Any, name: str, ndim: int) -> Array:
    """Return weights as float64, (K,) or (P, K): finite, non-negative, no row of zeros."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={shown(values)} is not allowed; use numbers >= 0") from None
    if array.ndim != ndim or 0 in array.shape:
        wanted = "(K,): one number a task" if ndim == 1 else "(P, K): a row a member"
        raise ValueError(f"{name} has shape {array.shape}; it must be {wanted}")
    wrong = ~np.isfinite(array) | (array < 0)
    if wrong.any():
        raise ValueError(f"{name} holds {array[wrong][0]}; use finite numbers >= 0")
    if (array.sum(axis=-1) == 0).any():
        raise ValueError(f"{name} holds zeros only{' in a row' * (ndim - 1)}; some task must count")
    return array


def undominated(losses: Array) -> NDArray[np.bool_]:
    """Mark the rows (P, K) that no other dominates; of equal ones the first, none with NaN."""
    no_worse = (losses[None] <= losses[:, None]).all(axis=2)  # (P, P): q is no worse than p
    better = (losses[None] < losses[:, None]).any(axis=2)
    earlier = np.tri(len(losses), k=-1, dtype=bool)  # an equal one that comes before
    dominated = (no_worse & (better | earlier)).any(axis=1)
    return np.asarray(~(dominated | np.isnan(losses).any(axis=1)))


def mean_losses(
    net: MultiTaskRegressor, X: NDArray[Any], y: NDArray[Any], *, chunk: int = 4096
) -> Array:
    """Return a fitted net's mean loss of each task over its labelled rows, (K,)."""
    total, count = torch.zeros(y.shape[1], dtype=torch.float64), torch.zeros(y.shape[1])
    net._set_training(False)
    with torch.no_grad():
        for start in range(0, len(X), chunk):
            Xi, yi = (torch.as_tensor(a[start : start + chunk]) for a in (X, y))
            losses, rows = net.task_losses(net.infer(Xi), yi, Xi)
            total += (losses * rows).double().cpu()
            count += rows.cpu()
    return np.asarray(total / count)
