"""Optimizers by name: ours here, any other of ``torch.optim`` by its own name."""

from torch.optim import SGD

from mtlsk.optimizers.adam import Adam, AdamW
from mtlsk.optimizers.base import (
    OPTIMIZERS,
    fused_where_possible,
    momentum_of,
    optimizer_arguments,
    set_option,
)

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "fused_where_possible",
    "momentum_of",
    "optimizer_arguments",
    "set_option",
]
