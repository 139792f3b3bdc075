"""Which engines go with which aggregators and controllers, to be asked before training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlsk.aggregators import Aggregator, OnlineDual
from mtlsk.component import shown
from mtlsk.controllers import Controller
from mtlsk.engines import ENGINES, Budget, Engine, Features, Online


def losses_only(aggregator: Aggregator, update_norm: str, controller: Controller | None) -> bool:
    """Say whether a step needs no Gramian: nobody looks at it."""
    looks = controller is not None and controller.needs_gramian
    return aggregator.needs == "losses" and update_norm == "native" and not looks


def check_engine(
    engine: Engine,
    aggregator: Aggregator,
    own: Sequence[Tensor],
    controller: Controller | None = None,
) -> None:
    """Raise ValueError, naming those that can, for an engine that does not fit.

    The online engine needs an aggregator with an online dual and a controller that does without
    the Gramian, the features engine a module with parameters of the tasks' own. Not to be asked
    where a step is one of :func:`losses_only`: it uses no engine.
    """
    looks = controller is not None and controller.needs_gramian
    dual = aggregator.needs == "losses"  # only its length is asked for: any route will do
    dual = dual or (isinstance(aggregator, OnlineDual) and aggregator.has_online_dual)
    dual = dual and not looks
    usable = {
        name: (dual or not issubclass(cls, Online)) and (bool(own) or not issubclass(cls, Features))
        for name, cls in ENGINES.members().items()
    }
    can = ", ".join(["auto", *sorted(name.lower() for name, fits in usable.items() if fits)])
    if controller is not None and controller.exact and isinstance(engine, Budget | Features):
        raise ValueError(
            f"gramian={type(engine).__name__.lower()!r} estimates, and {shown(controller)} needs "
            "the exact Gramian; it can use: auto, exact"
        )
    if isinstance(engine, Online) and looks:
        raise ValueError(
            f"gramian='online' computes no Gramian, which {shown(controller)} looks at; "
            f"it can use: {can}"
        )
    if isinstance(engine, Online) and not dual:
        raise ValueError(
            f"gramian='online' cannot serve {shown(aggregator)}, which has no online dual; "
            f"it can use: {can}"
        )
    if isinstance(engine, Features) and not own:
        raise ValueError(
            "gramian='features' needs a module with task parameters (heads) on top of shared "
            f"features, by shared_parameters() or task_parameters(k); this one can use: {can}"
        )
