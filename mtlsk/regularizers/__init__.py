"""What is added to the loss of a net's parameters: one a file, ``__all__`` is the registry."""

from mtlsk.regularizers.base import REGULARIZERS, Regularizer
from mtlsk.regularizers.path_norm import PathNorm, balance, multitask_path_norm, shallow_layers

__all__ = [
    "REGULARIZERS",
    "PathNorm",
    "Regularizer",
    "balance",
    "multitask_path_norm",
    "shallow_layers",
]
