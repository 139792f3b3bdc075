"""Shallow ReLU networks of several tasks: what minimum-norm interpolation by them comes to."""

from mtlsk.relu.convex import ConvexInterpolant, convex_interpolant, relu_dictionary
from mtlsk.relu.interpolator import ReLUInterpolator
from mtlsk.relu.kernel import kernel_coefficients, kernel_values
from mtlsk.relu.large import KernelApproximation, kernel_approximation
from mtlsk.relu.neurons import neuron_sharing
from mtlsk.relu.piecewise import PiecewiseLinear, ambiguous_intervals, merge_kinks

__all__ = [
    "ConvexInterpolant",
    "KernelApproximation",
    "PiecewiseLinear",
    "ReLUInterpolator",
    "ambiguous_intervals",
    "convex_interpolant",
    "kernel_approximation",
    "kernel_coefficients",
    "kernel_values",
    "merge_kinks",
    "neuron_sharing",
    "relu_dictionary",
]
