"""ReducedRankRegressor: linear multi-task regression of rank q, in closed form."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from mtlsk.linear_mtl import as_task_weights, check_rank, least_squares, scalarization_optimum
from mtlsk.linear_mtl.gram import Array


class ReducedRankRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Linear multi-task regression x'W a_i with q shared features, for given task weights.

    The global minimum of sum_i l_i MSE_i over W (d, q) and heads a_i (q,), in closed form: with
    Yhat = X B the least squares fit and G = Yhat'Yhat, the shared features span Yhat Lam^{1/2} u_j
    of the q leading eigenvectors of Lam^{1/2} G Lam^{1/2}. Some trade-offs between the tasks are
    the minimum for no weights: see :func:`mtlsk.exploration_test`.

    Parameters
    ----------
    rank : int
        q, from 1 to K.
    weights : K numbers >= 0, or None
        l, of which only the ratios matter; None is equal ones.
    fit_intercept : bool
        Centre X and y.

    Attributes
    ----------
    coef_ : (K, d), or (d,) where y is one-dimensional
    intercept_ : (K,), or a float
    shared_ : (d, q')
        W: the features X W of the training rows are orthonormal. q' < q where there is less to
        explain.
    heads_ : (q', K)
        The a_i; coef_ = (shared_ heads_)'.
    gram_ : (K, K)
        G, in the units of y squared, summed over the rows.
    explained_ : (K,)
        v_i = |P yhat_i|^2, the part of G_ii that the model keeps.
    weights_ : (K,)
        l divided by its sum.
    n_features_in_, feature_names_in_

    Raises
    ------
    ValueError
        For a rank outside 1..K, weights that are none, NaN or infinity.

    Examples
    --------
    >>> from mtlsk import ReducedRankRegressor
    >>> from mtlsk.datasets import make_arm
    >>> arm = make_arm(200, random_state=0)
    >>> ReducedRankRegressor(rank=2).fit(arm.data, arm.target).coef_.shape
    (7, 21)

    **Reference** arXiv 2308.13985 (Hu et al. 2023).
    """

    def __init__(
        self, rank: int = 1, weights: ArrayLike | None = None, *, fit_intercept: bool = True
    ) -> None:
        self.rank = rank
        self.weights = weights
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any) -> Self:
        """Find the model.

        Parameters
        ----------
        X : (n, d)
        y : (n, K) or (n,)
            Without NaN; more tasks than rows are allowed.
        """
        features, given = validate_data(
            self, X, y, multi_output=True, y_numeric=True, dtype=np.float64
        )
        targets = np.asarray(given, dtype=np.float64).reshape(len(features), -1)
        rank = check_rank(self.rank, targets.shape[1])
        self.weights_ = as_task_weights(self.weights, targets.shape[1])
        fit = least_squares(features, targets, self.fit_intercept)
        optimum = scalarization_optimum(self.weights_, fit.G, rank)
        self.gram_, self.explained_ = fit.G, optimum.v
        self.shared_ = fit.coef @ optimum.mixing
        self.heads_ = optimum.mixing.T @ fit.G
        coef = (self.shared_ @ self.heads_).T
        intercept = fit.y_mean - coef @ fit.x_mean
        one = np.ndim(given) == 1
        self.coef_: Array = coef[0] if one else coef
        self.intercept_: Any = float(intercept[0]) if one else intercept
        return self

    def predict(self, X: Any) -> Array:
        """Return the predictions (n, K), or (n,) where y was one-dimensional."""
        check_is_fitted(self)
        features = validate_data(self, X, reset=False, dtype=np.float64)
        return np.asarray(features @ self.coef_.T + self.intercept_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # rank 1, by default, for any number of tasks
        return tags
