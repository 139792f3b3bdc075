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
from mtlsk.optimizers.muon import Muon, hidden_weights, muon_groups
from mtlsk.optimizers.nadam import NAdam
from mtlsk.optimizers.orthogonal import orthogonalize
from mtlsk.optimizers.radam import RAdam

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "Muon",
    "NAdam",
    "RAdam",
    "fused_where_possible",
    "hidden_weights",
    "momentum_of",
    "muon_groups",
    "optimizer_arguments",
    "orthogonalize",
    "set_option",
]
