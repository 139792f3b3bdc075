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

    All see the same record: what the first changes, the second does not see in this step.

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
        for spec in self.controllers:
            CONTROLLERS.build(spec)
        return self

    @property
    def needs_gramian(self) -> bool:
        """Whether one of them looks at the Gramian."""
        return any(controller.needs_gramian for controller in self.members)

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
        """Return the memory of each, by its place in the list."""
        return {str(i): controller.state_dict() for i, controller in enumerate(self.members)}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Replace the memory of each."""
        for i, controller in enumerate(self.members):
            controller.load_state_dict(state[str(i)])
        return self
