"""How the Gramian of the task gradients is computed: one engine a file."""

from typing import Any

from mtlsk.engines.base import ENGINES, Engine, TaskGradients
from mtlsk.engines.exact import Exact

__all__ = ["ENGINES", "Engine", "Exact", "TaskGradients", "build_engine"]


def build_engine(spec: Any) -> Engine:
    """Build an engine from the config grammar; ``"auto"`` picks among exact routes only."""
    return ENGINES.build("Exact" if spec == "auto" else spec)
