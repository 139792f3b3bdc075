"""Many tasks: one task's part of the optimum is nearly an interpolation by a fixed kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtlsk.relu.convex import ConvexInterpolant, activations
from mtlsk.relu.piecewise import Array


@dataclass(frozen=True, eq=False)
class KernelApproximation:
    """Task s of an optimum, found again by the kernel sum_k |v*_{k,-s}| phi_k phi_k'.

    Attributes
    ----------
    task : int
    output_weights : array of shape (M,)
        u, in place of column s of V*.
    values : array of shape (n,)
        Its values at the rows ``at``.
    function_gap : float
        max |f_u - f_s| at these rows, as a share of max |f_s - mean f_s| there.
    cost_gap : float
        What sum_k |v_k|_2 |w_k|_2 grows by with u in column s, as a share: never negative but for
        the solver's rounding, as both networks interpolate.
    """

    task: int
    output_weights: Array
    values: Array
    function_gap: float
    cost_gap: float


def kernel_approximation(
    optimum: ConvexInterpolant, task: int, at: Array, tol: float = 1e-6
) -> KernelApproximation:
    """Return the solution u of min sum_k u_k^2 |w_k| / |v*_{k,-s}|_2, u interpolating task s.

    The other tasks' weights v*_{k,-s} are held: then sqrt(|v*_{k,-s}|^2 + u_k^2) is to second
    order |v*_{k,-s}| + u_k^2 / (2 |v*_{k,-s}|), and with many tasks u_k is small beside them.
    Neurons that no other task uses are left out.

    Parameters
    ----------
    optimum : ConvexInterpolant
        Of two tasks or more.
    task : int
        s, counted from 0.
    at : array of shape (n, d)
        Rows at which the two functions are compared.
    tol : float
        A neuron is used by the others if |v*_{k,-s}|_2 |w_k| exceeds this share of the largest
        |v*_k|_2 |w_k|.

    Raises
    ------
    ValueError
        For a task that is not there, and if the other tasks' neurons cannot interpolate this one.

    **Reference** arXiv 2410.21696.
    """
    V = optimum.output_weights
    if V.shape[1] < 2 or not 0 <= task < V.shape[1]:
        raise ValueError(
            f"task={task!r} is not allowed; of two or more tasks, 0 to {V.shape[1] - 1}"
        )
    size = np.linalg.norm(optimum.weights, axis=1)
    others = np.linalg.norm(np.delete(V, task, axis=1), axis=1)
    used = others * size > tol * (np.linalg.norm(V, axis=1) * size).max()
    X, y = optimum.X, optimum.Y[:, task]
    weights, biases = optimum.weights[used], optimum.biases[used]
    hidden = activations(X, weights, biases)
    affine = np.c_[X, np.ones(len(X))]
    scale = np.sqrt(others[used] / size[used])
    basis = np.linalg.svd(affine, full_matrices=False)
    left = basis[0][:, basis[1] > 1e-12 * basis[1][0]]  # the affine part is free: project it off
    features = scale * (hidden - left @ (left.T @ hidden))
    wanted = y - left @ (left.T @ y)
    z = np.linalg.lstsq(features, wanted, rcond=1e-10)[0]
    short = float(np.abs(features @ z - wanted).max())
    if short > 1e-6 * max(1.0, float(np.abs(y).max())):
        raise ValueError(
            f"the neurons of the other tasks leave {short:.2g} of task {task}'s labels: "
            "take more tasks"
        )
    u = np.zeros(len(V))
    u[used] = scale * z
    free = np.linalg.lstsq(affine, y - hidden @ u[used], rcond=None)[0]
    values = activations(at, weights, biases) @ u[used] + at @ free[:-1] + free[-1]
    own = optimum(at)[:, task]
    apart = float(np.abs(values - own).max())
    spread = float(np.abs(own - own.mean()).max())
    replaced = V.copy()
    replaced[:, task] = u
    cost = float(size @ np.linalg.norm(replaced, axis=1))
    return KernelApproximation(
        task, u, values, apart / spread if spread > 0 else apart, cost / optimum.cost - 1
    )
