"""How the Gramian of the task gradients is computed: one engine a file."""

from collections.abc import Mapping
from typing import Any

from mtlsk.engines.base import ENGINES, Engine, Forward, TaskGradients
from mtlsk.engines.budget import Budget
from mtlsk.engines.directions import check_directions, preserves_directions, task_directions
from mtlsk.engines.exact import Exact
from mtlsk.engines.features import Features
from mtlsk.engines.online import Online

__all__ = [
    "AUTO",
    "ENGINES",
    "Budget",
    "Engine",
    "Exact",
    "Features",
    "Forward",
    "Online",
    "TaskGradients",
    "build_engine",
    "check_directions",
    "preserves_directions",
    "task_directions",
]


AUTO = (
    "The exact engine, by the cheapest exact route: rows with one label each take one cotangent a "
    "row; nets whose graph is made of linear layers, elementwise functions and sums take their K "
    "cotangents together, without J; any other module takes K backward passes."
)
"""By what rule ``gramian="auto"`` chooses."""


def build_engine(spec: Any) -> Engine:
    """Build an engine from the config grammar; ``"auto"`` picks among exact routes only.

    A dict without a name, ``{"every": 4}``, means ``"auto"``.
    """
    if isinstance(spec, Mapping):
        spec = {"name": "auto", **spec}
        if spec["name"] == "auto":
            spec["name"] = "Exact"
    return ENGINES.build("Exact" if spec == "auto" else spec)
