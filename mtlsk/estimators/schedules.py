"""Schedules of the learning rate that go on where they were, in the next fit or another process.

skorch's ``LRScheduler`` makes its scheduler anew whenever training begins, and a new one takes a
step at once: a rate that is multiplied at every step (``StepLR``, ``ExponentialLR``) would be
multiplied once too often, and ``ReduceLROnPlateau`` would forget what it has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skorch.callbacks import LRScheduler

from mtlsk.estimators.statefile import plain


def steps_taken(net: Any) -> dict[str, Any]:
    """Return how many steps each live scheduler has taken, by the names of the callbacks."""
    return {name: getattr(s, "last_epoch", None) for name, _, s in _live(net)}


def saved_schedules(net: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of each live scheduler, with ``owes``: whether its epoch's step is to come.

    That is so for a checkpoint made by a callback that stands before the scheduler.

    Parameters
    ----------
    before : mapping
        :func:`steps_taken` when the callbacks of this epoch's end began; empty outside it.
    """
    return {
        name: {
            "policy": type(scheduler).__name__,
            "state": _kept(scheduler),
            "owes": callback.step_every == "epoch"
            and before.get(name) is not None
            and before[name] == scheduler.last_epoch,
        }
        for name, callback, scheduler in _live(net)
    }


def go_on(net: Any, saved: Mapping[str, Any], options: list[dict[str, Any]]) -> None:
    """Put the schedulers that training has just made where the saved ones were.

    Parameters
    ----------
    options : list of dict
        What the optimizer's groups were set to before the schedulers were made.
    """
    known = [
        (callback, scheduler, saved[name])
        for name, callback, scheduler in _live(net)
        if name in saved and saved[name]["policy"] == type(scheduler).__name__
    ]
    if not known:
        return
    for group, before in zip(net.optimizer_.param_groups, options, strict=True):
        group.update(before)
    for callback, scheduler, state in known:
        scheduler.load_state_dict(state["state"])
        if state["owes"]:
            callback.on_epoch_end(net)


def options_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return what the optimizer's groups are set to."""
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def _live(net: Any) -> list[tuple[str, Any, Any]]:
    """Return (name, callback, scheduler) of each scheduler that training has made."""
    return [
        (name, callback, callback.lr_scheduler_)
        for name, callback in net.callbacks_
        if isinstance(callback, LRScheduler) and getattr(callback, "lr_scheduler_", None)
    ]


def _kept(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's state, without what a file cannot hold: a new one has that anyway."""
    kept = {}
    for name, value in scheduler.state_dict().items():
        try:
            kept[name] = plain(value)
        except TypeError:
            continue
    return kept
