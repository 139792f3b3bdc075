"""Chain: several controllers, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from mtlsk.component import shown
from mtlsk.controllers.base import CONTROLLERS, Change, Controller, Live
from mtlsk.engines.base import TaskGradients
from mtlsk.record import StepRecord


class Chain(Controller):
    """Every controller of a list adjusts in turn; where two set the same name the last one wins.

    All see the same record: what the first changes, the second does not see in this step. Two of
    ours that would drive the same thing are refused.

    Parameters
    ----------
    controllers : list
        Controllers in the config grammar: names, dicts, classes or instances. An empty list
        changes nothing.

    Raises
    ------
    ValueError
        What its members raise.
    """

    def __init__(self, controllers: Sequence[Any] = ("APT",)) -> None:
        self.controllers = controllers

    @property
    def members(self) -> list[Controller]:
        """The live controllers, built when first asked for."""
        if getattr(self, "_members", None) is None:
            self._members = [CONTROLLERS.build(spec) for spec in self.controllers]
        return self._members

    def check_domains(self) -> Self:
        """Check that it is a list, and every member of it."""
        if not isinstance(self.controllers, list | tuple):
            raise ValueError(
                f"Chain: controllers={shown(self.controllers)} is not allowed; "
                "it must be a list of controllers"
            )
        members = [CONTROLLERS.build(spec) for spec in self.controllers]
        for i, first in enumerate(members):
            for second in members[i + 1 :]:
                if both := first.drives & second.drives:
                    raise ValueError(
                        f"Chain: {type(first).__name__} and {type(second).__name__} would both "
                        f"drive {', '.join(sorted(both))}; take one of the two"
                    )
        return self

    @property
    def needs_gramian(self) -> bool:
        """Whether one of them looks at the Gramian."""
        return any(controller.needs_gramian for controller in self.members)

    @property
    def drives(self) -> frozenset[str]:  # type: ignore[override]
        """What its members drive."""
        return frozenset().union(*(c.drives for c in self.members))

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether one of them does with the exact Gramian only."""
        return any(c.exact for c in self.members)

    def bind(self, live: Live) -> None:
        """Bind each."""
        for controller in self.members:
            controller.bind(live)

    def adjust(self, record: StepRecord, gradients: TaskGradients) -> Mapping[str, Change | Any]:
        """Return the changes of all."""
        changes: dict[str, Any] = {}
        for controller in self.members:
            changes |= controller.adjust(record, gradients)
        return changes

    def reset(self) -> Self:
        """Forget what each remembers."""
        for controller in self.members:
            controller.reset()
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of each, by its place in the list and its class."""
        return {name: controller.state_dict() for name, controller in self._named().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Replace the memory of each; one that was not there, or of another class, has none."""
        for name, controller in self._named().items():
            controller.load_state_dict(state.get(name, {}))
        return self

    def _named(self) -> dict[str, Controller]:
        return {f"{i} {type(c).__name__}": c for i, c in enumerate(self.members)}
