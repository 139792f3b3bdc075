"""RandomizedFront: what no task weights reach, reached by drawing among a few models."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from mtlsk.component import shown
from mtlsk.estimators.reduced_rank import ReducedRankRegressor
from mtlsk.linear_mtl import REACHED, balanced_solution, check_rank, least_squares, reachability
from mtlsk.linear_mtl.gram import Array


class RandomizedFront(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A mixture of at most K reduced-rank models that is better on every task than a given point.

    Linear scalarization misses some trade-offs of linear multi-task models of rank q. Drawing one
    of a few scalarization optima for each prediction does not: its expected errors on the training
    rows are below the point's by -gap_ * G_ii / n for every task i at once, the most that is
    possible for all. It is the draw that does it: averages of predictions are one model of a
    larger rank.

    Parameters
    ----------
    rank : int
        q of each model, from 1 to K.
    point : "balanced", or K numbers
        The mean squared errors on the training rows that are to be bettered. "balanced" is the
        rank-q model with the smallest largest one, exact for q = 1, K - 1 and K up to 12 tasks and
        otherwise the best that a local search finds.
    fit_intercept : bool
        Centre X and y.
    random_state : int, RandomState or None
        Of the draws in ``predict``; an int makes every call draw alike.

    Attributes
    ----------
    estimators_ : list of at most K fitted ReducedRankRegressor
    probabilities_ : (m,)
        Of the draw.
    gap_ : float
        Depth of the point below the hull, see :func:`mtlsk.reachability_gap`; at 0 the point is a
        scalarization optimum and nothing is gained.
    point_mse_, expected_mse_ : (K,)
        Errors on the training rows: the point's, and the mixture's in expectation over the draw.
    n_features_in_, feature_names_in_

    Raises
    ------
    ValueError
        As :class:`ReducedRankRegressor`, and for a point that no mixture reaches.

    **Reference** arXiv 2308.13985 (Hu et al. 2023), section on randomisation.
    """

    def __init__(
        self,
        rank: int = 1,
        point: Any = "balanced",
        *,
        fit_intercept: bool = True,
        random_state: Any = None,
    ) -> None:
        self.rank = rank
        self.point = point
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Find the point and the mixture above it.

        Parameters
        ----------
        X : (n, d)
        y : (n, K) or (n,)
            Without NaN.
        """
        features, given = validate_data(
            self,
            X,
            y,
            multi_output=True,
            y_numeric=True,
            dtype=np.float64,
            ensure_min_samples=2,
        )
        targets = np.asarray(given, dtype=np.float64).reshape(len(features), -1)
        rank = check_rank(self.rank, targets.shape[1])
        fit = least_squares(features, targets, self.fit_intercept)
        if isinstance(self.point, str) and self.point == "balanced":
            v = balanced_solution(fit.G, rank, fit.squares).v
        else:
            v = fit.squares - fit.n * _as_errors(self.point, targets.shape[1])
        reach = reachability(v, fit.G, rank)
        self.point_mse_ = (fit.squares - v) / fit.n
        if reach.gap > REACHED:
            best = self.point_mse_ + reach.gap * fit.G.diagonal() / fit.n
            raise ValueError(
                f"point={shown(self.point)} is below what rank {rank} reaches, by mixtures too; "
                f"the nearest in its direction is {shown(best.round(6).tolist())}"
            )
        self.gap_, self.probabilities_ = reach.gap, reach.probabilities
        self.estimators_ = [
            ReducedRankRegressor(rank, w.tolist(), fit_intercept=self.fit_intercept).fit(
                features, given
            )
            for w in reach.task_weights
        ]
        explained = np.array([model.explained_ for model in self.estimators_])
        self.expected_mse_ = fit.mse(self.probabilities_ @ explained)
        return self

    def predict(self, X: Any) -> Array:
        """Return predictions (n, K): for each row one model is drawn and predicts all its tasks.

        The draws are independent with ``probabilities_``, by ``random_state``: with an int the same
        X gives the same answer, and a row's model depends on its place in X.
        """
        check_is_fitted(self)
        features = validate_data(self, X, reset=False, dtype=np.float64)
        draws = self.draw(len(features))
        each = np.array([model.predict(features) for model in self.estimators_])
        return np.asarray(each[draws, np.arange(len(draws))])

    def draw(self, n: int) -> NDArray[np.int64]:
        """Return which of ``estimators_`` predicts each of n rows."""
        rng = check_random_state(self.random_state)
        found = rng.choice(len(self.probabilities_), size=n, p=self.probabilities_)
        return np.asarray(found, dtype=np.int64)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.non_deterministic = True  # a row's answer depends on its place
        tags.regressor_tags.poor_score = True
        return tags


def _as_errors(point: ArrayLike, n_tasks: int) -> Array:
    try:
        errors = np.array(point, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"point={shown(point)} is not allowed; use 'balanced' or an error for each task"
        ) from None
    if errors.shape != (n_tasks,) or not np.isfinite(errors).all() or errors.min() < 0:
        raise ValueError(
            f"point={shown(point)} is not allowed; use 'balanced' or {n_tasks} finite mean squared "
            "errors >= 0, one a task"
        )
    return errors
