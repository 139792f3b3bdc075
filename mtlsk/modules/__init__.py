"""Modules: HardSharing, the default, others that follow its protocol, and the tasks of a net.

``shared_parameters()`` yields what all tasks share and ``task_parameters(k)`` what is task k's own;
columns of the output belong to tasks.
"""

from mtlsk.modules.char_lm import CharLM
from mtlsk.modules.hard_sharing import ACTIVATIONS, HardSharing
from mtlsk.modules.holomorphic import HOLOMORPHIC, HolomorphicSharing
from mtlsk.modules.tasks import (
    CRITERIA,
    KINDS,
    OF_MATRICES,
    ElementCriterion,
    Task,
    absolute_error,
    binary_log_loss,
    huber,
    log_loss,
    one_column,
    squared_error,
)

__all__ = [
    "ACTIVATIONS",
    "CRITERIA",
    "HOLOMORPHIC",
    "KINDS",
    "OF_MATRICES",
    "CharLM",
    "ElementCriterion",
    "HardSharing",
    "HolomorphicSharing",
    "Task",
    "absolute_error",
    "binary_log_loss",
    "huber",
    "log_loss",
    "one_column",
    "squared_error",
]
