"""ReLUInterpolator: the shallow ReLU network of least norm through data of one feature."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from mtlsk.relu.kernel import kernel_coefficients, kernel_values
from mtlsk.relu.piecewise import Array, PiecewiseLinear, ambiguous_intervals, merge_kinks


class ReLUInterpolator(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The exact minimum-norm interpolant by a shallow ReLU network of one input and K outputs.

    f(x) = sum_k v_k (w_k x + b_k)_+ + A x + c of least sum_k |v_k|_2 |w_k|, what weight decay
    minimises over networks of any width: it connects the dots, at cost
    sum_i |s_{i+1} - s_i|_2, s_i the slopes between neighbours, and is affine beyond the ends.

    Parameters
    ----------
    tol : float
        The share to which x and y are known: kinks that it can explain are none, and directions
        that it can explain are the same. 1e-6 for numbers that were float32.

    Attributes
    ----------
    norm_ : float
        sum_i |s_{i+1} - s_i|_2, in units of y / x.
    n_neurons_ : int
        At most N - 2 for N different x.
    knots_ : array of shape (n_neurons_,)
        Where the neurons' kinks are.
    output_weights_ : array of shape (n_neurons_, K)
        The change of slope at each knot: v_k for w_k = 1.
    unique_ : bool
        Whether no other network of this cost interpolates.
    ambiguous_ : array of int
        The i, counted from 0 in the sorted x, for which s_i - s_{i-1} and s_{i+1} - s_i are both
        non-zero and positively collinear: the two kinks at the ends of interval i may be merged.
        Empty iff ``unique_``; with two or more tasks and labels in general position it is.
    function_ : PiecewiseLinear
        Through the sorted data, repeated x dropped.
    n_features_in_ : int
        1.

    Examples
    --------
    >>> from mtlsk.relu import ReLUInterpolator
    >>> line = ReLUInterpolator().fit([[0.0], [1.0], [2.0], [3.0]], [0.0, 0.0, 1.0, 3.0])
    >>> line.norm_, line.n_neurons_, line.unique_
    (2.0, 2, False)

    **Reference** arXiv 2410.21696.
    """

    def __init__(self, tol: float = 1e-12) -> None:
        self.tol = tol

    def fit(self, X: Any, y: Any) -> Self:
        """Connect the dots.

        Parameters
        ----------
        X : array of shape (n, 1)
            In any order; repeated values must have the same y.
        y : array of shape (n,) or (n, K)

        Raises
        ------
        ValueError
            For more than one feature, NaN or infinity, one x with two different y, values so
            close that the slope between them overflows.
        """
        if not 0 <= self.tol < 1:
            raise ValueError(f"tol={self.tol!r} is not allowed; it is a share from 0 to below 1")
        if y is None:
            raise ValueError("ReLUInterpolator requires y to be passed, but the target y is None")
        x = self._numbers(X, reset=True)
        labels = _labels(y)
        check_consistent_length(x, labels)
        self._flat = labels.ndim == 1
        points, first, which = np.unique(x, return_index=True, return_inverse=True)
        labels = labels.reshape(len(x), -1)
        other = np.flatnonzero((labels != labels[first][which]).any(axis=1))
        if len(other):
            raise ValueError(
                f"rows {first[which[other[0]]]} and {other[0]} have the same x = {x[other[0]]:g} "
                "and different y: nothing interpolates both; average repeated x first"
            )
        self.function_ = PiecewiseLinear(points, labels[first])
        with np.errstate(over="ignore"):
            slopes = self.function_.slopes
        if not np.isfinite(slopes).all():
            i = int(np.argwhere(~np.isfinite(slopes))[0, 0])
            raise ValueError(
                f"the slope between x = {points[i]:.17g} and x = {points[i + 1]:.17g} overflows; "
                "scale y, or merge x that differ by rounding only"
            )
        self.norm_ = self.function_.cost
        self.ambiguous_ = ambiguous_intervals(self.function_, self.tol)
        kinks = self.function_.kinks
        bent = np.linalg.norm(kinks, axis=1) > self.function_.rounding(self.tol)
        self.knots_ = points[1:-1][bent]
        self.output_weights_ = kinks[bent]
        self.n_neurons_ = len(self.knots_)
        self.unique_ = not len(self.ambiguous_)
        return self

    def predict(self, X: Any) -> Array:
        """Return the values (n,), or (n, K) as y was, at X (n, 1)."""
        check_is_fitted(self)
        return self._as_y(self.function_(self._numbers(X, reset=False)))

    def predict_kernel(self, X: Any) -> Array:
        """Return what the minimum-norm interpolant of the kernel 1 - |x - x'| predicts.

        x is scaled to the unit interval first. From the first to the last datum this equals
        ``predict``; outside, its slopes are not the extrapolated ones.

        Raises
        ------
        ValueError
            For data of a single x: an interval has two ends.
        """
        check_is_fitted(self)
        x = self.function_.x
        if len(x) < 2:
            raise ValueError("the data have a single x: the kernel form needs two or more")
        coefficients = kernel_coefficients(x, self.function_.y)
        return self._as_y(kernel_values(x, coefficients, self._numbers(X, reset=False)))

    def minimizers(self, interval: int | None = None) -> tuple[PiecewiseLinear, PiecewiseLinear]:
        """Return two different interpolants of the same least cost: the dots, and one neuron less.

        Parameters
        ----------
        interval : int, optional
            One of ``ambiguous_``, the first by default: its two kinks are merged.

        Raises
        ------
        ValueError
            If the interpolant is unique, or the interval is not an ambiguous one.
        """
        check_is_fitted(self)
        if self.unique_:
            raise ValueError("the interpolant is unique: there is no second one of equal cost")
        chosen = int(self.ambiguous_[0]) if interval is None else interval
        if chosen not in self.ambiguous_:
            allowed = ", ".join(str(i) for i in self.ambiguous_)
            raise ValueError(f"interval={interval!r} is not ambiguous; use one of {allowed}")
        return self.function_, merge_kinks(self.function_, chosen)

    def _as_y(self, values: Array) -> Array:
        return values[:, 0] if self._flat else values

    def _numbers(self, X: Any, *, reset: bool) -> Array:
        """Return the one feature (n,), its name and number checked or set."""
        checked: Array = validate_data(self, X, reset=reset, dtype=np.float64)
        if checked.shape[1] != 1:
            raise ValueError(
                f"X has {checked.shape[1]} features and ReLUInterpolator takes 1; choose a column, "
                "or use mtlsk.convex_interpolant on a dictionary of neurons"
            )
        return checked[:, 0]


def _labels(y: Any) -> NDArray[np.float64]:
    """Return y (n,) or (n, K) as finite numbers; a column vector stays one."""
    found: NDArray[np.float64] = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
    return found
