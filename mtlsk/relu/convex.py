"""Minimum-norm interpolation by chosen neurons, solved as the convex problem it is."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlsk.relu.piecewise import Array


@dataclass(frozen=True, eq=False)
class ConvexInterpolant:
    """The network f(x) = sum_k v_k (w_k'x + b_k)_+ + A x + c that a solve found.

    Attributes
    ----------
    weights, biases : arrays of shape (M, d) and (M,)
        The dictionary of neurons: w_k, b_k.
    output_weights : array of shape (M, T)
        v_k, most of them zero.
    skip : array of shape (T, d)
        A.
    intercept : array of shape (T,)
        c.
    X, Y : arrays of shape (n, d) and (n, T)
        What it interpolates.
    cost : float
        sum_k |v_k|_2 |w_k|_2.
    lower_bound : float
        No network of these neurons that interpolates costs less: sum_ij L_ij Y_ij at the solver's
        dual variables L, made feasible (|L' phi_k|_2 <= |w_k|, L'[X 1] = 0).
    gap : float
        (cost - lower_bound) / cost: how exact the solver was.
    residual : float
        max |f(X) - Y|.
    """

    weights: Array
    biases: Array
    output_weights: Array
    skip: Array
    intercept: Array
    X: Array
    Y: Array
    cost: float
    lower_bound: float
    gap: float
    residual: float

    def __call__(self, X: NDArray[np.floating]) -> Array:
        """Return the values (n, T) at rows (n, d)."""
        hidden = activations(X, self.weights, self.biases)
        values: Array = hidden @ self.output_weights + X @ self.skip.T + self.intercept
        return values


def activations(X: NDArray[np.floating], weights: Array, biases: Array) -> Array:
    """Return (w_k'x + b_k)_+ of rows (n, d), (n, M)."""
    hidden: Array = np.maximum(X @ weights.T + biases, 0.0)
    return hidden


def relu_dictionary(
    X: NDArray[np.floating], directions: int = 64, random_state: int | None = 0
) -> tuple[Array, Array]:
    """Return neurons (weights (M, d), biases (M,)) in random unit directions, kinks at the data.

    For one direction no other kinks are needed: between two neighbouring projections the
    activations on the data are affine in the bias. Nor is -w with w, as (-z)_+ = (z)_+ - z and
    the affine part is free. With one feature the dictionary is complete; with more it grows
    better with ``directions``.
    """
    X = np.asarray(X, dtype=np.float64)
    if X.shape[1] == 1:
        ways = np.ones((1, 1))
    else:
        ways = np.random.default_rng(random_state).standard_normal((directions, X.shape[1]))
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    weights, biases = [], []
    for way in ways:
        places = np.unique(X @ way)[1:-1]  # at the ends a neuron is affine on the data
        weights.append(np.tile(way, (len(places), 1)))
        biases.append(-places)
    return np.concatenate(weights), np.concatenate(biases)


def convex_interpolant(
    X: NDArray[np.floating],
    Y: NDArray[np.floating],
    dictionary: tuple[Array, Array] | None = None,
) -> ConvexInterpolant:
    """Return the network of the dictionary's neurons of least sum_k |v_k|_2 |w_k|_2 through Y.

    min over V, A, c of sum_k |v_k|_2 |w_k|_2 subject to Phi V + X A' + 1 c' = Y: A and c are free,
    and the problem is a second-order cone program, which Clarabel solves.

    Parameters
    ----------
    X, Y : arrays of shape (n, d) and (n, T)
    dictionary : (weights (M, d), biases (M,)), optional
        ``relu_dictionary(X)`` by default.

    Raises
    ------
    ImportError
        Without the extra ``convex``.
    ValueError
        For shapes that do not fit, values not finite, and if no choice of output weights
        interpolates.

    **Reference** arXiv 2410.21696.
    """
    X, Y = (np.asarray(a, dtype=np.float64) for a in (X, Y))
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y):
        raise ValueError(f"X {X.shape} and Y {Y.shape} do not fit; (n, features) and (n, tasks)")
    if not (np.isfinite(X).all() and np.isfinite(Y).all()):
        raise ValueError("X or Y has values that are not finite; drop or impute those rows")
    weights, biases = relu_dictionary(X) if dictionary is None else dictionary
    if weights.shape != (len(biases), X.shape[1]) or not len(biases):
        raise ValueError(
            f"the dictionary's weights {weights.shape} and biases {np.shape(biases)} do not fit "
            f"X {X.shape}; (neurons, {X.shape[1]}) and (neurons,), one neuron or more"
        )
    hidden = activations(X, weights, biases)
    affine = np.c_[X, np.ones(len(X))]
    size = np.linalg.norm(weights, axis=1)
    everything = np.c_[hidden, affine]
    best = np.linalg.lstsq(everything, Y, rcond=None)[0]
    worst = float(np.abs(everything @ best - Y).max())
    if worst > 1e-8 * max(1.0, float(np.abs(Y).max())):
        raise ValueError(
            f"no network of these {len(biases)} neurons interpolates: the least squares leave "
            f"{worst:.2g}; take more directions, or drop repeated rows of X"
        )
    V, free, multipliers = _solve(hidden, affine, Y, size)
    cost = float(size @ np.linalg.norm(V, axis=1))
    bound = _lower_bound(multipliers, hidden, affine, Y, size)
    residual = float(np.abs(hidden @ V + affine @ free - Y).max())
    gap = (cost - bound) / cost if cost > 0 else 0.0
    return ConvexInterpolant(
        weights, biases, V, free[:-1].T, free[-1], X, Y, cost, bound, gap, residual
    )


def _solve(hidden: Array, affine: Array, Y: Array, size: Array) -> tuple[Array, Array, Array]:
    """Return V (M, T), the affine part (d + 1, T) and the multipliers (n, T) of the program."""
    try:
        cp: Any = importlib.import_module("cvxpy")
    except ImportError as error:
        raise ImportError(f"this needs cvxpy ({error}): pip install 'mtlsk[convex]'") from error
    V = cp.Variable((hidden.shape[1], Y.shape[1]))
    free = cp.Variable((affine.shape[1], Y.shape[1]))
    through = hidden @ V + affine @ free == Y
    cp.Problem(cp.Minimize(size @ cp.norm(V, 2, axis=1)), [through]).solve(solver="CLARABEL")
    return V.value, free.value, through.dual_value


def _lower_bound(multipliers: Array, hidden: Array, affine: Array, Y: Array, size: Array) -> float:
    """Return the dual's value at multipliers (of either sign) made feasible."""
    inside = multipliers - affine @ np.linalg.lstsq(affine, multipliers, rcond=None)[0]
    reach = np.linalg.norm(hidden.T @ inside, axis=1)
    usable = size > 0
    largest = float((reach[usable] / size[usable]).max(initial=0.0))
    value = abs(float((inside * Y).sum()))
    return value / largest if largest > 0 else 0.0
