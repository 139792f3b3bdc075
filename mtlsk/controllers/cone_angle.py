"""ConeAngle: the cosine of a cone's half-angle, from the critical cone or by a schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from mtlsk.certificates import critical_cone
from mtlsk.controllers.base import Change, Controller, Live
from mtlsk.domains import Choice, Interval
from mtlsk.engines.base import TaskGradients
from mtlsk.record import StepRecord


class ConeAngle(Controller):
    """The cone of ConicGrad follows the training: c_t = min(c_max, max(c_min, rho c_crit)).

    c_crit(G) is the largest cosine at which the cone around the mean gradient still holds a
    direction that improves every task (:func:`mtlsk.certificates.critical_cone`), so with rho < 1
    and c_min below it the update always improves all: close to the mean gradient while the tasks
    agree, far from it when they conflict. What the paper leaves open; the rule is ours.

    ``"linear"`` and ``"cosine"`` go from c_max to c_min, or back if that is the smaller one, in
    ``n_steps`` steps and stay there: c_t = c_max + (c_min - c_max) s(t / n_steps) with s(x) = x or
    (1 - cos(pi x)) / 2.

    The new angle acts in the next step.

    Parameters
    ----------
    schedule : "critical", "linear" or "cosine"
    rho : float
        Share of the critical cosine, in (0, 1]; ``"critical"`` only.
    c_max, c_min : float
        In (0, 1]. ``"critical"`` keeps between them, the others go from the first to the second.
    n_steps : int
        Length of the schedule in steps; ``"linear"`` and ``"cosine"`` only.

    Attributes
    ----------
    taken_ : int
        How many steps of the schedule have been taken. Memory.

    Raises
    ------
    ValueError
        If the aggregator has no cone, or ``c_min > c_max`` with ``"critical"``.

    **Reference** the dynamic cone angle is an open question of arXiv 2502.00217.
    """

    paper = "open question of arXiv 2502.00217, ours"
    drives = frozenset({"c"})
    domains = {
        "schedule": Choice("critical", "linear", "cosine"),
        "rho": Interval(0.0, 1.0, open_low=True, search=(0.5, 0.99)),
        "c_max": Interval(0.0, 1.0, open_low=True, search=(0.5, 0.99)),
        "c_min": Interval(0.0, 1.0, open_low=True, search=(0.05, 0.5)),
        "n_steps": Interval(1, math.inf, integer=True, log=True, search=(100, 10000)),
    }

    taken_: int

    def __init__(
        self,
        schedule: str = "critical",
        rho: float = 0.9,
        c_max: float = 0.95,
        c_min: float = 0.05,
        n_steps: int = 1000,
    ) -> None:
        self.schedule = schedule
        self.rho = rho
        self.c_max = c_max
        self.c_min = c_min
        self.n_steps = n_steps

    def check_domains(self) -> Self:
        """Check the domains, and that the bounds of ``"critical"`` leave something between."""
        super().check_domains()
        if self.schedule == "critical" and self.c_min > self.c_max:
            raise ValueError(
                f"ConeAngle: c_min={self.c_min} is above c_max={self.c_max}; exchange them"
            )
        return self

    @property
    def needs_gramian(self) -> bool:
        """Whether the angle depends on the Gramian: ``"critical"`` does."""
        return self.schedule == "critical"

    @classmethod
    def fits(cls, aggregator: type) -> bool:
        """Say whether the aggregator has a cone."""
        return bool(getattr(aggregator, "has_cone", False))

    def bind(self, live: Live) -> None:
        """Look whether the aggregator has a cone."""
        super().bind(live)
        params = live.aggregator.get_params()
        name = type(live.aggregator).__name__
        if not self.fits(type(live.aggregator)):
            raise ValueError(f"ConeAngle drives the cone of ConicGrad, and {name} has none")
        if isinstance(params["c"], str):
            raise ValueError(
                f"ConeAngle and {name}(c={params['c']!r}) would both set c; give c a number or "
                "drop the controller"
            )
        if params.get("solver") == "printed" and max(self.c_min, self.c_max) == 1:
            raise ValueError(
                "ConeAngle: c=1 divides by zero with solver='printed'; take c_max and c_min below 1"
            )

    def adjust(self, record: StepRecord, gradients: TaskGradients) -> Mapping[str, Any]:
        """Return the cosine of the next step."""
        if self.schedule == "critical":
            if record.gramian is None:  # the weights are kept in this step, and so is the angle
                return {}
            c = min(self.c_max, max(self.c_min, self.rho * critical_cone(record.gramian)))
            return {"aggregator__c": Change(c, f"{self.rho:g} of the critical cosine")}
        self.taken_ = getattr(self, "taken_", 0) + 1
        x = min(1.0, self.taken_ / self.n_steps)
        if self.schedule == "cosine":
            x = (1 - math.cos(math.pi * x)) / 2
        c = self.c_max + (self.c_min - self.c_max) * x
        return {"aggregator__c": Change(c, f"{self.schedule} schedule")}
