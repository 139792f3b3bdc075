"""The least squares fit of all tasks, which the Gram matrix of linear multi-task models is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_X_y

from mtlsk.linear_mtl.gram import Array


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Least squares of K tasks on d features.

    Attributes
    ----------
    coef : (d, K)
        The shortest least squares solution B; Yhat = X B.
    G : (K, K)
        Yhat'Yhat.
    squares : (K,)
        |y_i|^2.
    x_mean, y_mean : (d,), (K,)
        What X and Y were centred by; zeros without an intercept.
    n : int
        Rows.
    """

    coef: Array
    G: Array
    squares: Array
    x_mean: Array
    y_mean: Array
    n: int

    def mse(self, v: Array) -> Array:
        """Return MSE_i = (|y_i|^2 - v_i) / n of a model that explains v (..., K)."""
        return np.asarray(np.clip(self.squares - v, 0, None) / self.n)


def fit_linear(X: Any, Y: Any, *, fit_intercept: bool) -> LinearFit:
    """Return the least squares fit of Y (n, K) on X (n, d), of minimal norm where n <= d.

    Raises
    ------
    ValueError
        For NaN or infinity, one-dimensional Y, shapes that do not go together, or an X that
        predicts nothing at all.
    """
    if hasattr(Y, "ndim") and Y.ndim == 1:
        raise ValueError("Y has shape (n,), one task; it must be (n, K), a column a task")
    for name, values in (("Y", Y), ("X", X)):
        array = np.asarray(values)
        if array.dtype.kind == "f" and np.isnan(array).any():
            row = int(np.argwhere(np.isnan(array))[0][0])
            raise ValueError(
                f"{name} contains NaN (row {row}): the Gram matrix needs every "
                f"{'label; leave out rows that lack one' if name == 'Y' else 'value; impute it'}"
            )
    x, y = check_X_y(X, Y, multi_output=True, dtype=np.float64, y_numeric=True)
    return least_squares(x, np.asarray(y, dtype=np.float64), fit_intercept)


def least_squares(X: Array, Y: Array, fit_intercept: bool) -> LinearFit:
    """Return the fit of checked arrays X (n, d) and Y (n, K)."""
    x_mean = X.mean(axis=0) if fit_intercept else np.zeros(X.shape[1])
    y_mean = Y.mean(axis=0) if fit_intercept else np.zeros(Y.shape[1])
    x, y = X - x_mean, Y - y_mean
    coef = np.linalg.lstsq(x, y, rcond=None)[0]
    fitted = x @ coef
    return LinearFit(coef, fitted.T @ fitted, (y**2).sum(axis=0), x_mean, y_mean, len(X))
